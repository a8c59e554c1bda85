"""A blob longer than 2³¹ bytes crosses the wire through the real services, and is the same at the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from blake3 import blake3

from comity.blobs.blob_files import BlobFolder
from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.ledger.ledger import in_round
from comity.tensors import Layout
from comity.transport.retry import RetryPolicy

ROUND = in_round(1)


class Idle:
    """A role without work."""

    def advance(self) -> bool:
        return False

    def fail(self, error: Any) -> None:
        raise error


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder that takes no memory, as one below /dev/shm would."""
    with TemporaryDirectory(prefix="large-", dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_blob_longer_than_2_to_the_31_bytes_crosses_and_is_verified(
    disk: Path, serve: Callable[..., Any], connect: Callable[..., Any], make_pair: Callable[..., Any]
) -> None:
    # In bfloat16, with a tensor behind the bound; what is sent is sparse, and every value 0.
    sizes = {"large": 2**30, "last": 5}
    layout = Layout.of({name: torch.empty(size, dtype=torch.bfloat16, device="meta") for name, size in sizes.items()})
    assert layout.tensors["last"].begin == 2**31
    hasher, left, zeros = blake3(layout.header), layout.size - len(layout.header), bytes(2**24)
    while left:
        left -= len(piece := zeros[:left])
        hasher.update(piece)
    (disk / "sent").mkdir()
    with (disk / "sent" / hasher.hexdigest()).open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size)
    sent = BlobFolder(disk / "sent").read(hasher.digest())
    assert sent is not None

    pair = make_pair()
    kept = SessionBlobs(BlobFolder(disk / "kept"))
    kept.expect(Expectation("vote", ROUND, layout.size, 1, layout.verify))
    host = serve((replace(pair.acceptor, blobs=kept), Idle()))
    patient = RetryPolicy(call_s=60.0, retry_s=60.0)
    line = connect(host.address, contract=pair.acceptor.contract, retry=patient)
    told: list[int] = []
    line.put(sent, "vote", ROUND, before=told.append)
    assert told == [layout.size]
    # It was hashed as it came, and its header held against the layout that was expected.
    assert kept.held(sent.digest).complete
    assert layout.view(kept.get(sent.digest).data)["last"].shape == (5,)
    assert pair.acceptor.gate.delivered("received") == layout.size

    kept.publish(sent.digest, "vote", ROUND)
    back = line.get(sent.digest, layout.size, layout.verify)
    assert back.digest == sent.digest
    assert back.size == layout.size > 2**31
