"""What a peer could have learned from a party's checkpoints and losses: `comity audit membership|reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from comity.contract import Json
from comity.errors import InvalidValue
from comity.protocol.audits import AuditContext
from comity.tensors import State
from comity.training import audits
from comity.training.classification import Classification


def membership(context: AuditContext) -> Mapping[str, Json]:
    """How well a partner can tell who was trained on, by the checkpoints that left."""
    party, terms = context.require_party(), _terms(context)
    found = audits.membership(
        [state for _, state in _checkpoints(context)],
        party.data,
        party.task,
        terms.optimizer_spec,
        min(terms.iterations * context.contract.rounds, audits.MOST_ITERATIONS),
    )
    return found | {"blobs_not_kept": party.not_kept, "losses_sent": context.losses_sent()}


def reconstruction(context: AuditContext) -> Mapping[str, Json]:
    """Which samples the differences of neighbouring checkpoints show."""
    party, task = context.require_party(), context.require_party().task(None)
    _terms(context)
    changes = [
        {name: after[name].double() - before[name].double() for name in task.parameters}
        for (first, before), (second, after) in pairwise(_checkpoints(context))
        # A round begins with the model that was picked, which is another trajectory's.
        if first == second
    ]
    found = audits.reconstruction(changes, party.data.train, task.model, task.initial_state)
    return found | {"blobs_not_kept": party.not_kept, "losses_sent": context.losses_sent()}


def _checkpoints(context: AuditContext) -> list[tuple[int, State]]:
    """The checkpoints that left, as they were sent, with their rounds."""
    party = context.require_party()
    layout = party.task(None).layout
    return [(each.units.first, layout.view(each.blob.data)) for each in party.sent if each.kind == "checkpoint"]


def _terms(context: AuditContext) -> Any:
    if not isinstance(context.require_party().task(None), Classification):
        raise InvalidValue(
            "audits are of what is trained on samples",
            expected="a task with samples",
            received=context.contract.task.kind,
            action="an episode is played anew: nothing of it is a sample",
        )
    return context.contract.terms
