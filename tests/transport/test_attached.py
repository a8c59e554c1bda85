"""Small blobs that travel with the messages that name them: taken as uploads and downloads are, and no way past the gate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest

from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.contract import Contract
from comity.errors import BlobCorrupted, BlobSizeMismatch, NonFiniteValue, UnexpectedBlob, UnsupportedProtocol
from comity.ledger.ledger import in_round
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.store.memory_store import MemoryStore
from comity.tensors import Blob
from comity.transport.blobs import got_attached, take_attached
from comity.wire.v1.blobs_pb2 import BlobRef

BLOB = Blob.of(bytearray(b"weights"))
EGRESS = ("contract", "checkpoint")


class Session:
    """What a request belongs to."""

    told_of_its_end = nullcontext

    def __init__(self, contract: Contract) -> None:
        self.blobs = SessionBlobs()
        self.ledger = MemoryStore()
        self.gate = EgressGate(contract, Policy(egress=EGRESS), self.ledger, "clinic")


@pytest.fixture
def session(make_contract: Callable[..., Contract]) -> Session:
    return Session(make_contract(egress=EGRESS))


def attached(blob: Blob = BLOB, content: bytes | None = None) -> BlobRef:
    return BlobRef(digest=blob.digest, content=bytes(blob.data) if content is None else content)


def refuse(blob: Blob) -> None:
    raise NonFiniteValue("a value is not finite")


def expect(session: Session, verify: Callable[[Blob], None] = lambda _: None) -> None:
    session.blobs.expect(Expectation("checkpoint", in_round(1), BLOB.size, 1, verify))


def test_what_comes_with_a_request_is_kept_and_recorded_once(session: Session) -> None:
    expect(session)
    for _ in range(2):
        reference = attached()
        take_attached(session, reference, "checkpoint", in_round(1))
        # What the role and the ledger see is as if it had come by itself.
        assert reference == BlobRef(digest=BLOB.digest)
    assert bytes(session.blobs.get(BLOB.digest).data) == b"weights"
    (entry,) = session.ledger.entries()
    assert (entry.fact.matter, entry.fact.kind, entry.fact.subject) == ("delivered", "checkpoint", BLOB.hex)
    assert entry.fact.size == BLOB.size


def test_without_one_nothing_is_expected(session: Session) -> None:
    take_attached(session, BlobRef(digest=BLOB.digest), "checkpoint", in_round(1))
    assert BLOB.digest not in session.blobs


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"weightS", BlobCorrupted), (b"weight", BlobSizeMismatch), (b"weights and more", BlobSizeMismatch)],
    ids=["changed", "short", "long"],
)
def test_what_does_not_fit_is_refused_and_takes_no_place(
    session: Session, content: bytes, error: type[Exception]
) -> None:
    expect(session)
    with pytest.raises(error):
        take_attached(session, attached(content=content), "checkpoint", in_round(1))
    assert not list(session.ledger.entries())
    take_attached(session, attached(), "checkpoint", in_round(1))
    with pytest.raises(error):
        got_attached(attached(content=content), BLOB.size)


def test_what_is_here_is_recorded_of_nothing_that_is_not_expected(session: Session) -> None:
    """Nor are other bytes taken for it: who has one blob here would have the ledger grow for ever, and say what never was."""
    expect(session)
    take_attached(session, attached(), "checkpoint", in_round(1))
    for round in range(2, 50):
        take_attached(session, attached(), "checkpoint", in_round(round))
    with pytest.raises(BlobCorrupted):
        take_attached(session, attached(content=b"w"), "checkpoint", in_round(1))
    session.blobs.settle(BLOB.digest)
    with pytest.raises(BlobCorrupted):
        take_attached(session, attached(content=bytes(2**20)), "checkpoint", in_round(1))
    assert [(entry.fact.units, entry.fact.size) for entry in session.ledger.entries()] == [(in_round(1), BLOB.size)]


def test_what_nobody_expects_is_refused(session: Session) -> None:
    for kind, units in (("checkpoint", in_round(2)), ("update", in_round(1))):
        expect(session)
        with pytest.raises(UnexpectedBlob):
            take_attached(session, attached(), kind, units)


def test_what_is_not_what_it_should_be_is_refused(session: Session) -> None:
    expect(session, refuse)
    with pytest.raises(NonFiniteValue):
        take_attached(session, attached(), "checkpoint", in_round(1))
    assert BLOB.digest not in session.blobs


def test_no_message_passes_the_gate_with_a_blob_on_it(session: Session) -> None:
    session.gate.send(BlobRef(digest=BLOB.digest))
    with pytest.raises(UnsupportedProtocol, match="attached to a message that has not passed the gate"):
        session.gate.send(attached())
