"""Files that travel: what was written is what is read, and a drive that is full costs nothing else."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comity.blobs.session_blobs import Incoming
from comity.errors import (
    BlobCorrupted,
    BlobSizeMismatch,
    ComityError,
    InvalidValue,
    MalformedMessage,
    StorageFailed,
    UnknownBlob,
    UnknownParty,
)
from comity.ledger.receipts import Signer
from comity.tensors import Blob
from comity.transport.bundles import Bundle, Label, bundled, opened_bundle, unpacked, write_bundle
from comity.wire.v1 import blobs_pb2, sessions_pb2

LABEL = Label("hospital", "s-1", "0" * 64)
BLOBS = [Blob.of(bytes([number]) * 600_000) for number in range(3)]


@pytest.fixture
def clinic(make_signer: Callable[[str], Signer]) -> Signer:
    return make_signer("clinic")


def test_what_was_written_is_read(tmp_path: Path, clinic: Signer) -> None:
    message = sessions_pb2.FetchRequest(session="s-1")
    call = bundled("/s/M", message, message)
    path = tmp_path / "a.bundle"
    size = write_bundle(path, LABEL, Bundle(3, [call, call], BLOBS, held=[bytes(32)], ending=2), clinic, "clinic")
    assert size == path.stat().st_size
    with opened_bundle(path, lambda party: {"clinic": clinic.public_key}[party]) as bundle:
        assert (bundle.sender, bundle.label, bundle.round, bundle.ending) == ("clinic", LABEL, 3, 2)
        assert list(bundle.calls) == [call, call]
        assert unpacked(bundle.calls[0].answers[0], sessions_pb2.FetchRequest) == message
        assert bundle.held == {bytes(32), *(blob.digest for blob in BLOBS)}
        # In any order, and again.
        for blob in (*reversed(BLOBS), BLOBS[0]):
            incoming = Incoming(blob.digest, blob.size)
            bundle.fill(incoming)
            assert incoming.finish().data == blob.data
        with pytest.raises(UnknownBlob):
            bundle.fill(Incoming(bytes(32), BLOBS[0].size))
        with pytest.raises(BlobSizeMismatch, match="expected 8 bytes, received 600000 bytes"):
            bundle.fill(Incoming(BLOBS[0].digest, 8))
        with pytest.raises(MalformedMessage, match="BlobRef"):
            unpacked(bundle.calls[0].request, blobs_pb2.BlobRef)


def test_a_blob_that_changed_after_the_bundle_was_opened_is_noticed(tmp_path: Path, clinic: Signer) -> None:
    path = tmp_path / "a.bundle"
    write_bundle(path, LABEL, Bundle(1, [], BLOBS), clinic, "clinic")
    with opened_bundle(path, lambda party: clinic.public_key) as bundle, path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
        file.flush()
        incoming = Incoming(BLOBS[-1].digest, BLOBS[-1].size)
        bundle.fill(incoming)
        with pytest.raises(BlobCorrupted):
            incoming.finish()


@given(at=st.integers(0, 10**9), bit=st.integers(0, 7), cut=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_edit_and_any_cut_is_noticed(at: int, bit: int, cut: bool, tmp_path: Path, clinic: Signer) -> None:
    path = tmp_path / "a.bundle"
    blobs = [Blob.of(bytes([number]) * 50) for number in range(2)]
    write_bundle(
        path, LABEL, Bundle(1, [bundled("/s/M", sessions_pb2.FetchRequest(session="s"))], blobs), clinic, "clinic"
    )
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    path.write_bytes(data[:at] if cut else data)
    with pytest.raises(ComityError), opened_bundle(path, lambda party: known(party, clinic)) as bundle:
        for blob in blobs:
            incoming = Incoming(blob.digest, blob.size)
            bundle.fill(incoming)
            incoming.finish()


def known(party: str, clinic: Signer) -> str:
    if party != "clinic":
        raise UnknownParty("not known")
    return clinic.public_key


def test_a_full_drive_is_one_line_and_keeps_what_was_there(tmp_path: Path, clinic: Signer) -> None:
    path = tmp_path / "a.bundle"
    write_bundle(path, LABEL, Bundle(1), clinic, "clinic")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StorageFailed, match=r"a\.bundle cannot be written.*--out"):
            write_bundle(path, LABEL, Bundle(1, [], BLOBS), clinic, "clinic")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]


def test_what_nobody_could_read_is_not_written(tmp_path: Path, clinic: Signer) -> None:
    calls = [bundled("/s/M", sessions_pb2.FetchRequest(session="s" * 2**20))] * 5
    with pytest.raises(InvalidValue, match="sampling_period"):
        write_bundle(tmp_path / "a.bundle", LABEL, Bundle(1, calls), clinic, "clinic")
    assert not list(tmp_path.iterdir())
