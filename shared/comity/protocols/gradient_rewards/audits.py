"""What a server could have learned from a client's updates: `comity audit membership|reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch

from comity.contract import Json
from comity.protocol.audits import AuditContext
from comity.protocols.gradient_rewards.messages import update_layout
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.tensors import State
from comity.training import audits


def membership(context: AuditContext) -> Mapping[str, Json]:
    """How well a server can tell who was trained on, by the first model with all updates so far added to it."""
    party = context.require_party()
    task, terms = party.task(None), _terms(context)
    summed = accumulate(_updates(context), lambda one, other: {name: one[name] + other[name] for name in one})
    models = [{name: tensor + update.get(name, 0) for name, tensor in task.initial_state.items()} for update in summed]
    steps = terms.epochs * -(-task.samples // terms.batch_size) * context.contract.rounds
    spec = terms.optimizer_spec(1)
    found = audits.membership(models, party.data, party.task, spec, min(steps, audits.MOST_ITERATIONS))
    return found | {"blobs_not_kept": party.not_kept}


def reconstruction(context: AuditContext) -> Mapping[str, Json]:
    """Which samples updates, and differences of successive updates, show."""
    party, task = context.require_party(), context.require_party().task(None)
    found = audits.reconstruction(_updates(context), party.data.train, task.model, task.initial_state)
    return found | {"blobs_not_kept": party.not_kept}


def _updates(context: AuditContext) -> list[State]:
    """The updates that left, by parameter, oldest first."""
    party = context.require_party()
    task: Any = party.task(None)
    shapes = {name: task.initial_state[name].shape for name in task.parameters}
    sizes = [shape.numel() for shape in shapes.values()]
    layout = update_layout(sum(sizes))
    found: list[State] = []
    for each in party.sent:
        if each.kind == "update":
            parts = torch.as_tensor(layout.view(each.blob.data)["update"]).split(sizes)
            found.append({name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)})
    return found


def _terms(context: AuditContext) -> GradientRewardsTerms:
    terms = context.contract.terms
    assert isinstance(terms, GradientRewardsTerms)  # noqa: S101 - the registry gave the protocol's own
    return terms
