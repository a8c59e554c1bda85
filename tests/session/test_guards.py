"""What leaves is looked into, and what is sent may be something else than what was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract
from comity.errors import PolicyRefusal
from comity.ledger.ledger import Units, in_round
from comity.session.gate import EgressGate, Guards, Outgoing
from comity.session.policy import Policy
from comity.store.memory_store import MemoryStore
from comity.tensors import Blob
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import sessions_pb2

MADE, SENT = Blob.of(bytearray(b"as it was made")), Blob.of(bytearray(b"as it is sent!"))


def offer(index: int, total: float) -> pb.OfferRequest:
    return pb.OfferRequest(round=2, checkpoint=pb.Checkpoint(index=index, loss=pb.Loss(sum=total, count=3)))


def test_an_inspector_sees_the_thing_itself_and_can_hold_it_back(make_contract: Callable[..., Contract]) -> None:
    seen: list[Outgoing] = []

    def inspect(outgoing: Outgoing) -> None:
        seen.append(outgoing)
        content = outgoing.content
        if isinstance(content, pb.OfferRequest) and content.checkpoint.loss.sum > 100:
            raise PolicyRefusal("a loss is held back", expected="at most 100", received="more")

    store = MemoryStore()
    guards = Guards({"loss": [inspect], "checkpoint": [inspect], "statement": [inspect]})
    gate = EgressGate(make_contract(), Policy(), store, "clinic", guards)
    gate.send(offer(0, 5.0))
    gate.send_blob(MADE, "checkpoint", in_round(2))
    gate.send(pb.CloseRoundRequest(round=2, count=1, request=sessions_pb2.SignedStatement()))
    assert [(each.kind, str(each.units), each.peer) for each in seen] == [
        ("loss", "round 2", "clinic"),
        ("checkpoint", "round 2", "clinic"),
        ("statement", "round 2", "clinic"),
    ]
    assert seen[0].subject == "checkpoint 0"
    assert seen[1].content is MADE
    before = len(list(store.entries()))
    with pytest.raises(PolicyRefusal, match="held back"):
        gate.send(offer(1, 500.0))
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


def test_a_loss_is_that_of_the_model_as_it_is_sent(make_pair: Callable[..., Any]) -> None:
    """A learner whose models are rounded before they leave tells the losses of the rounded ones."""
    from comity.protocols.assisted_learning.party import Party  # noqa: PLC0415

    context = make_pair().learner
    layout = context.task.layout

    def rounded(kind: str, units: Units, blob: Blob) -> Blob:
        assert (kind, units) == ("checkpoint", in_round(1))
        return layout.pack({name: tensor.half().float() for name, tensor in layout.view(blob.data).items()})

    blobs = SessionBlobs(None, rounded)
    party = Party(context.task, blobs, context.journal, context.contract, context.own, context.peer)
    start = blobs.add(layout.pack(context.task.initial_state))
    for checkpoint in list(party.train(start.digest, 1))[1:]:
        state = layout.view(blobs.get(checkpoint.digest).data)
        assert all((tensor == tensor.half().float()).all() for tensor in state.values())
        assert checkpoint.loss.sum == float(context.task.losses(state).sum())
