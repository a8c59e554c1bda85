"""What leaves is looked into, and what is sent may be something else than what was made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from teacher_votes.v1 import teacher_votes_pb2 as pb

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract
from comity.errors import PolicyRefusal
from comity.ledger.ledger import Units, in_round
from comity.session.gate import EgressGate, Guards, Outgoing
from comity.session.policy import Policy
from comity.store.memory_store import MemoryStore
from comity.tensors import Blob
from comity.wire.v1 import sessions_pb2

MADE, SENT = Blob.of(bytearray(b"as it was made")), Blob.of(bytearray(b"as it is sent!"))


KINDS = ("contract", "vote", "checkpoint")


def pooled(label: int) -> pb.PooledLabels:
    return pb.PooledLabels(round=2, labels=[label, 3])


def test_an_inspector_sees_the_thing_itself_and_can_hold_it_back(make_contract: Callable[..., Contract]) -> None:
    seen: list[Outgoing] = []

    def inspect(outgoing: Outgoing) -> None:
        seen.append(outgoing)
        content = outgoing.content
        if isinstance(content, pb.PooledLabels) and max(content.labels) > 100:
            raise PolicyRefusal("a label is held back", expected="at most 100", received="more")

    store = MemoryStore()
    guards = Guards({"vote": [inspect], "checkpoint": [inspect], "statement": [inspect]})
    gate = EgressGate(make_contract(egress=KINDS), Policy(egress=KINDS), store, "clinic", guards)
    gate.send(pooled(5))
    gate.send_blob(MADE, "checkpoint", in_round(2))
    gate.send(pb.VoteRequest(round=2, request=sessions_pb2.SignedStatement()))
    assert [(each.kind, str(each.units), each.peer) for each in seen] == [
        ("vote", "round 2", "clinic"),
        ("checkpoint", "round 2", "clinic"),
        ("statement", "round 2", "clinic"),
    ]
    assert seen[0].subject == "labels"
    assert seen[1].content is MADE
    before = len(list(store.entries()))
    with pytest.raises(PolicyRefusal, match="held back"):
        gate.send(pooled(500))
    assert len(list(store.entries())) == before, "what stays here is no entry"


def test_what_is_sent_may_be_something_else_than_what_was_made() -> None:
    asked: list[tuple[str, Units, Blob]] = []

    def release(kind: str, units: Units, blob: Blob) -> Blob:
        asked.append((kind, units, blob))
        return SENT

    blobs = SessionBlobs(None, release)
    kept = blobs.release(MADE, "checkpoint", in_round(3))
    assert asked == [("checkpoint", in_round(3), MADE)]
    assert kept.digest == SENT.digest
    # What was made is nowhere: what is derived from the release is derived from what is sent.
    assert MADE.digest not in blobs
    assert blobs.get(SENT.digest) == SENT


def test_a_release_that_is_refused_leaves_nothing() -> None:
    def refuse(kind: str, units: Units, blob: Blob) -> Blob:
        raise PolicyRefusal(f"this {kind} tells too much", expected="less", received="more")

    blobs = SessionBlobs(None, refuse)
    with pytest.raises(PolicyRefusal, match="tells too much"):
        blobs.release(MADE, "update", in_round(1))
    assert MADE.digest not in blobs
