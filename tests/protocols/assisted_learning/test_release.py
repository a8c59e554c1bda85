"""What is told of a model that is sent otherwise than it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comity.blobs.session_blobs import SessionBlobs
from comity.ledger.ledger import Units, in_round
from comity.protocols.assisted_learning.party import Party
from comity.tensors import Blob


def test_a_loss_is_that_of_the_model_as_it_is_sent(make_pair: Callable[..., Any]) -> None:
    """A learner whose models are rounded before they leave tells the losses of the rounded ones."""
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
