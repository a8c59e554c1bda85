"""A party's own losses, sample by sample, on the models of a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Json
from comity.tensors import Blob, Layout, State
from comity.training import OptimizerSpec, Resume, Snapshot


class AssistedTask(Protocol):
    """A party's model and data, as far as this protocol needs them."""

    layout: Layout
    initial_state: State

    @property
    def is_guarded(self) -> bool:
        """Whether a leak guard decides what of the trajectory is sent."""

    @property
    def samples(self) -> int:
        """Number of training samples."""

    @property
    def judged(self) -> int:
        """Number of samples over which losses are: those that are trained on, or those that are held out."""

    def trajectory(
        self,
        state: State,
        spec: OptimizerSpec,
        *,
        iterations: int,
        period: int,
        round: int,
        resume: Resume | None = None,
    ) -> Iterator[Snapshot]:
        """Trains from `state` and yields the live model at iterations 0, I, 2I, … below T."""

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Per-sample losses at or above 0 in float64: of all samples, or of those named."""

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of a model on the party's test samples, or in its tests, says, by metric; empty without any."""


class OwnLosses:
    """Per-sample losses on this party's data, by digest of the model.

    Those of the pick outlive the process: they were found block by block, and what follows must rest on the very same
    numbers.

    Args:
        task: This party's model and data.
        blobs: The session's blobs at this party.
    """

    def __init__(self, task: AssistedTask, blobs: SessionBlobs) -> None:
        self._task = task
        self._blobs = blobs
        self._known: dict[bytes, Float[Tensor, " samples"]] = {}
        self._pick: tuple[bytes, bytes] | None = None

    @property
    def kept(self) -> bytes | None:
        """Digest of the blob that holds the losses on the pick; None before the first pick."""
        return None if self._pick is None else self._pick[1]

    def view(self, digest: bytes) -> State:
        """The tensors of a model that is here."""
        return self._task.layout.view(self._blobs.get(digest).data)

    def of(self, digest: bytes) -> Float[Tensor, " samples"]:
        """The losses on a model, over all samples; NaN counts as infinite."""
        if digest not in self._known:
            if self._pick is not None and digest == self._pick[0]:
                self._known[digest] = torch.frombuffer(self._blobs.get(self._pick[1]).data, dtype=torch.float64)
            else:
                self._known[digest] = _ordered(self._task.losses(self.view(digest)))
        return self._known[digest]

    def of_samples(self, digest: bytes, samples: Int[Tensor, " block"]) -> Float[Tensor, " block"]:
        """The losses on a model, over some samples; NaN counts as infinite."""
        return _ordered(self._task.losses(self.view(digest), samples))

    def store(self, losses: Float[Tensor, " samples"]) -> bytes:
        """Keeps the losses on a model that is picked, durably; returns the blob's digest."""
        return self._blobs.add(Blob.of(bytearray(losses.contiguous().numpy().tobytes()))).digest

    def keep(self, pick: bytes, losses: bytes | None) -> None:
        """Forgets every model but the pick, whose losses are in a blob."""
        self._pick = None if losses is None else (pick, losses)
        self._known.clear()


def _ordered(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    # NaN compares with nothing; a model that gives one is as bad as a model can be.
    return losses.nan_to_num(nan=float("inf"), posinf=float("inf"))
