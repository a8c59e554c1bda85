"""What somebody could have learned from what a party sent: `comity audit reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comity.contract import Json
from comity.protocol.audits import AuditContext
from comity.tensors import State
from comity.training import audits


def reconstruction(context: AuditContext) -> Mapping[str, Json]:
    """Which samples gradients, and differences of successive gradients, show."""
    party = context.require_party()
    task: Any = party.task(None)
    shapes = {name: task.initial_state[name].shape for name in task.parameters}
    sizes = [shape.numel() for shape in shapes.values()]
    initial = task.local.initial_state
    found: list[State] = []
    for each in party.sent:
        if each.kind == "update":
            parts = torch.as_tensor(task.gradient_layout.view(each.blob.data)["gradient"]).split(sizes)
            # A change goes against the gradient; of the own head, nothing crosses.
            rows = {name: -part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
            found.append(rows | {name: torch.zeros_like(initial[name]) for name in task.own})
    shown = audits.reconstruction(found, party.data.train, task.model, initial)
    return shown | {"blobs_not_kept": party.not_kept}
