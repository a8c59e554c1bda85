"""A gradient as it is sent: what the leak guard lets out of it, clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from comity.ledger.ledger import Units
from comity.privacy.leak_guard import LeakGuard
from comity.session.contexts import PeerContext
from comity.tensors import State


@dataclass(frozen=True, slots=True)
class ReleasedGradient:
    """What leaves of a gradient.

    Attributes:
        blob: Its digest, hexadecimal; None where nothing is left of it.
        length: Its length before it was clipped.
        held: Share of the rows that stayed; None without a guard.
        state: All that was asked for by name, with zeros for rows that stayed; before it was clipped.
    """

    blob: str | None
    length: float
    held: float | None
    state: State


def released(
    context: PeerContext,
    task: Any,
    gradients: State,
    guard: LeakGuard | None,
    units: Units,
    *,
    clip_norm: float,
) -> ReleasedGradient:
    """Makes durable what is sent of a gradient, and that it may be sent; rows that stay are sent as zeros.

    Args:
        context: The party's place opposite the one that it is for.
        task: Its task.
        gradients: By name of the parameters that cross; and of buffers, how they moved, where those leave in another way.
        guard: Has looked on; None for none.
        units: The round.
        clip_norm: Greatest length.
    """
    verdict, place = None, context.place
    if guard is not None:
        let_out = guard.release_gradient(gradients)
        gradients, verdict = let_out.state, let_out.verdict
        if verdict.is_refused and place.verdicts is not None:
            # Zeros in all rows: it sits the round out.
            place.verdicts.refuse("update", units, str(units), verdict)
    flat = task.flat(gradients)
    length = float(flat.double().norm())
    held = verdict.held_rows / verdict.rows if verdict is not None and verdict.rows else None
    if not length:
        return ReleasedGradient(None, length, held, gradients)
    if length > clip_norm:
        flat = flat * (clip_norm / length)
    blob = context.blobs.release(task.gradient_layout.pack({"gradient": flat.to(torch.float32)}), "update", units)
    if verdict is not None and place.verdicts is not None:
        place.verdicts.record("update", units, blob.digest, verdict)
    return ReleasedGradient(blob.hex, length, held, gradients)
