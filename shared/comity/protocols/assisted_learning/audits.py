"""What a peer could have learned from a party's checkpoints and losses: `comity audit membership|reconstruction`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from comity.contract import Json
from comity.errors import InvalidValue
from comity.ledger.ledger import Units
from comity.protocol.audits import AuditContext
from comity.tensors import State
from comity.training import audits
from comity.training.supervised import Supervised

_TOLD = re.compile(r"checkpoint (\d+) ([0-9a-f]{64})")
"""What the ledger calls the loss of a checkpoint."""


def membership(context: AuditContext) -> Mapping[str, Json]:
    """How well a partner can tell who was trained on, by the checkpoints that left."""
    party, terms = context.require_party(), _terms(context)
    found = audits.membership(
        [state for _, state in _checkpoints(context)],
        party.data,
        party.task,
        terms.optimizer_spec(1),
        min(terms.iterations * context.contract.rounds, audits.MOST_ITERATIONS),
    )
    return found | {"blobs_not_kept": party.not_kept, "losses_sent": context.losses_sent()}


def reconstruction(context: AuditContext) -> Mapping[str, Json]:
    """Which samples the differences of neighbouring checkpoints show."""
    party, task = context.require_party(), context.require_party().task(None)
    _terms(context)
    changes = [
        {name: after[name].double() - before[name].double() for name in task.parameters}
        for trajectory in _trajectories(context)
        for before, after in pairwise(trajectory)
    ]
    found = audits.reconstruction(changes, party.data.train, task.model, task.initial_state)
    return found | {"blobs_not_kept": party.not_kept, "losses_sent": context.losses_sent()}


def _checkpoints(context: AuditContext) -> list[tuple[int, State]]:
    """The checkpoints that left, as they were sent, with their rounds."""
    party = context.require_party()
    layout = party.task(None).layout
    return [(each.units.first, layout.view(each.blob.data)) for each in party.sent if each.kind == "checkpoint"]


def _trajectories(context: AuditContext) -> Iterator[list[State]]:
    """What was kept of each round's trajectory, in order; it begins with a peer's model, with what was picked, or anew."""
    party, rounds = context.require_party(), defaultdict[Units, dict[int, State]](dict)
    layout = party.task(None).layout
    for entry in context.store.entries(context.session.session):
        fact = entry.fact
        told = _TOLD.fullmatch(fact.subject)
        if told is not None and fact.direction == "sent" and (blob := party.copy(bytes.fromhex(told[2]))) is not None:
            rounds[fact.units][int(told[1])] = layout.view(blob.data)
    for trajectory in rounds.values():
        yield [trajectory[index] for index in sorted(trajectory)]


def _terms(context: AuditContext) -> Any:
    if not isinstance(context.require_party().task(None), Supervised):
        raise InvalidValue(
            "audits are of what is trained on samples",
            expected="a task with samples",
            received=context.contract.task.kind,
            action="an episode is played anew: nothing of it is a sample",
        )
    return context.contract.terms
