"""What somebody could have learned from what a party sent: `comity audit membership|reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch

from comity.contract import Json
from comity.errors import InvalidValue
from comity.protocol.audits import AuditContext
from comity.protocols.nash_bargaining.task import bargaining_terms
from comity.tensors import State
from comity.training import audits


def membership(context: AuditContext) -> Mapping[str, Json]:
    """How well a learner can tell who was trained on, by the first model with the party's own steps so far made from it.

    Raises:
        InvalidValue: The party has a head of its own, which the learner does not have.
    """
    party, terms = context.require_party(), bargaining_terms(context.contract.terms)
    task: Any = party.task(None)
    if task.own:
        raise InvalidValue(
            "membership is told by losses, and this party's head is its own",
            expected="a party with the session's task",
            received="a head that never left",
            action="comity audit reconstruction looks at its gradients",
        )
    rate = terms.local_learning_rate
    summed = accumulate(_changes(context), lambda one, other: {name: one[name] + other[name] for name in one})
    models = [{name: each + rate * sent.get(name, 0) for name, each in task.initial_state.items()} for sent in summed]
    steps = min(terms.local_steps * context.contract.rounds, audits.MOST_ITERATIONS)
    found = audits.membership(models, party.data, lambda some: party.task(some).local, terms.local_optimizer, steps)
    return found | {"blobs_not_kept": party.not_kept}


def reconstruction(context: AuditContext) -> Mapping[str, Json]:
    """Which samples gradients, and differences of successive gradients, show."""
    party = context.require_party()
    task: Any = party.task(None)
    shown = audits.reconstruction(_changes(context), party.data.train, task.model, task.local.initial_state)
    return shown | {"blobs_not_kept": party.not_kept}


def _changes(context: AuditContext) -> list[State]:
    """The gradients that left, by parameter, oldest first, as the changes that they make."""
    party = context.require_party()
    task: Any = party.task(None)
    shapes = {name: task.initial_state[name].shape for name in task.parameters}
    sizes = [shape.numel() for shape in shapes.values()]
    found: list[State] = []
    for each in party.sent:
        if each.kind == "update":
            parts = torch.as_tensor(task.gradient_layout.view(each.blob.data)["gradient"]).split(sizes)
            # A change goes against the gradient; of the own head, nothing crosses.
            rows = {name: -part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
            found.append(rows | {name: torch.zeros_like(task.local.initial_state[name]) for name in task.own})
    return found
