"""What of a guarded training is sent: each model as the leak guard lets it out, beside the one that is trained on."""

from __future__ import annotations

import torch

from comity.privacy.leak_guard import LeakGuard, Verdict, parallel_rows
from comity.tensors import State
from comity.training.trajectories import Snapshot

_OWN = "own."
_GUARD = "guard."


class Releases:
    """Makes a training's snapshots as they are sent.

    Args:
        guard: Judges them.
        sent: The model that the training began with, or, where it goes on, that was sent last.
    """

    def __init__(self, guard: LeakGuard, sent: State) -> None:
        self._guard = guard
        self._sent = {name: tensor.clone() for name, tensor in sent.items()}

    def first(self, optimizer: State) -> Snapshot:
        """The model that the training begins with: no own sample is behind its being sent."""
        found = Verdict(alike=parallel_rows(self._sent))
        return Snapshot(0, self._sent, {**optimizer, **self._kept({})}, found)

    def snapshot(self, iteration: int, model: State, optimizer: State) -> Snapshot:
        """The model of an iteration, as it is sent, with what is needed to go on from the one that is trained."""
        released = self._guard.release_model(model, self._sent)
        self._sent = {name: tensor.clone() for name, tensor in released.state.items()}
        apart = {name: each for name, each in model.items() if not torch.equal(each, self._sent[name].to(each))}
        return Snapshot(iteration, self._sent, {**optimizer, **self._kept(apart)}, released.verdict)

    def _kept(self, apart: State) -> dict[str, torch.Tensor]:
        own = {f"{_OWN}{name}": tensor for name, tensor in apart.items()}
        return own | {f"{_GUARD}{name}": tensor for name, tensor in self._guard.kept().items()}


def apart(kept: State) -> tuple[State, State, State]:
    """What a snapshot keeps, taken apart.

    Returns:
        What of the trained model is not as it was sent, what the guard keeps, and the rest.
    """
    own = {name.removeprefix(_OWN): tensor for name, tensor in kept.items() if name.startswith(_OWN)}
    guard = {name.removeprefix(_GUARD): tensor for name, tensor in kept.items() if name.startswith(_GUARD)}
    rest = {name: tensor for name, tensor in kept.items() if not name.startswith((_OWN, _GUARD))}
    return own, guard, rest
