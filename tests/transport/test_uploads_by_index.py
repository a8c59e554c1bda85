"""A blob that is sent while it is still being hashed: named by its index, with its digest in the last piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import torch

from comity.blobs.session_blobs import Expectation
from comity.ledger.ledger import in_round
from comity.tensors import Blob, Layout
from comity.transport.identity import CONTRACT_KEY, PARTY_KEY, SESSION_KEY
from comity.transport.status import from_rpc_error
from comity.wire.v1 import blobs_pb2

LAYOUT = Layout.of({"weight": torch.zeros(50_000)})
BLOB = LAYOUT.pack({"weight": torch.ones(50_000)})
OTHER = LAYOUT.pack({"weight": torch.full((50_000,), 2.0)})


class Idle:
    """A role without work."""

    def advance(self) -> bool:
        return False

    def fail(self, error: Any) -> None:
        raise error


@pytest.fixture
def pair(make_pair: Callable[..., Any]) -> Any:
    pair = make_pair()
    pair.acceptor.blobs.expect(Expectation("vote", in_round(1), LAYOUT.size, 2, LAYOUT.verify))
    return pair


@pytest.fixture
def put(serve: Callable[..., Any], pair: Any) -> Iterator[Callable[..., blobs_pb2.BlobStat]]:
    context = pair.acceptor
    host = serve((context, Idle()))
    with grpc.insecure_channel(host.address) as channel:
        method = channel.stream_unary(
            "/comity.wire.v1.Blobs/Put",
            blobs_pb2.BlobChunk.SerializeToString,
            blobs_pb2.BlobStat.FromString,
        )

        def send(pieces: list[blobs_pb2.BlobChunk], **named: str) -> blobs_pb2.BlobStat:
            fields = {
                "kind": "vote",
                "unit": "round",
                "first": "1",
                "count": "1",
                "size": str(LAYOUT.size),
                "offset": "0",
            } | named
            beside = [(f"comity-{name}", value) for name, value in fields.items()]
            beside += [(PARTY_KEY, "clinic"), (SESSION_KEY, context.contract.session)]
            return method(iter(pieces), metadata=[*beside, (CONTRACT_KEY, context.contract.hash)], timeout=20)

        yield send


def pieces(blob: Blob, digest: bytes | None = None) -> list[blobs_pb2.BlobChunk]:
    data = bytes(blob.data)
    half = len(data) // 2
    last = blobs_pb2.BlobChunk(data=data[half:], digest=blob.digest if digest is None else digest)
    return [blobs_pb2.BlobChunk(data=data[:half]), last]


def test_an_upload_may_end_with_its_digest(put: Callable[..., blobs_pb2.BlobStat], pair: Any) -> None:
    assert put(pieces(BLOB), index="0").complete
    assert pair.acceptor.blobs.get(BLOB.digest) == BLOB
    assert [(each.fact.subject, each.fact.size) for each in pair.acceptor_store.entries(peer="clinic")][-1] == (
        BLOB.hex,
        LAYOUT.size,
    )
    # By its digest, it need not come again; by its index it may.
    assert put(pieces(BLOB), index="0").complete
    assert put(pieces(OTHER), index="1").complete
    assert pair.acceptor.blobs.held(OTHER.digest).complete


def refused(put: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        put(*arguments, **options)
    return str(from_rpc_error(caught.value))


def test_what_does_not_end_under_its_digest_is_forgotten(put: Callable[..., Any], pair: Any) -> None:
    whole = [blobs_pb2.BlobChunk(data=bytes(BLOB.data))]
    for _ in range(5):
        # Refused ones do not count.
        assert "ended without its digest" in refused(put, whole, index="0")
        assert "not those announced" in refused(put, pieces(BLOB, OTHER.digest), index="0")
    # What is cut goes on by its digest.
    assert "ended early" in refused(
        put, [blobs_pb2.BlobChunk(data=bytes(OTHER.data)[:-8], digest=OTHER.digest)], index="1"
    )
    assert pair.acceptor.blobs.held(OTHER.digest).size == LAYOUT.size - 8
    rest = [blobs_pb2.BlobChunk(data=bytes(OTHER.data)[-8:])]
    assert put(rest, digest=OTHER.hex, offset=str(LAYOUT.size - 8)).complete
    assert "does not belong there" in refused(put, pieces(BLOB, OTHER.digest), digest=BLOB.hex)
    assert "cannot be read" in refused(put, pieces(BLOB), index="-1")
    assert put(pieces(BLOB), index="0").complete
