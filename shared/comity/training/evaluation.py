"""What a model says of samples, and how well, in evaluation mode."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity import interruption
from comity.contract import HeadSpec, Json
from comity.data import Dataset
from comity.tasks.objective import Objective, Outputs, sole
from comity.tensors import State
from comity.training.network import Network

CLASSES = HeadSpec(name="class", size=1)
"""The one head of a classifier."""


class Evaluator:
    """Evaluates a task's model on samples that are where it computes.

    Args:
        network: The model.
        objective: What it is tested for.
        normalization: Per-channel mean and standard deviation of the inputs; empty tuples for none.
        block: Samples in a block; fixed, since it decides the rounding.
        seed: What the model draws by. It is part of the question that an evaluation answers: always the same.
        device: Where it computes.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        normalization: tuple[tuple[float, ...], tuple[float, ...]],
        block: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.network = network
        self.objective = objective
        self.seed = seed
        self._normalization = normalization
        self._block = block
        self._device = device

    def prepared(self, data: Dataset, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch ..."]:
        """Samples as the model takes them."""
        return data.prepare(data.inputs[indices], *self._normalization)

    def outputs(self, weights: dict[str, Tensor], data: Dataset, indices: Int[Tensor, " batch"]) -> Outputs:
        """What the model says of samples, by weights that are where it computes."""
        interruption.point()
        return self.network.evaluate(weights, self.prepared(data, indices), self.seed)

    def losses(self, state: State, data: Dataset, samples: Int[Tensor, " n"] | None) -> Float[Tensor, " n"]:
        """See `Supervised.losses`."""
        order = torch.arange(len(data)) if samples is None else samples
        weights = self.network.on_device(state)
        parts = [
            self.objective.loss(self.outputs(weights, data, block), data.targets_of(block), "none")
            for block in order.to(self._device).split(self._block)
        ]
        return torch.cat(parts).double().cpu()

    def tested(self, state: State, data: Dataset) -> dict[str, Json]:
        """See `Supervised.tested`."""
        weights, tally, total = self.network.on_device(state), self.objective.tally(), 0.0
        for block in self._blocks(data):
            outputs, targets = self.outputs(weights, data, block), data.targets_of(block)
            tally.add(outputs, targets)
            total += float(self.objective.loss(outputs, targets, "none").double().sum())
        loss = total / len(data)
        return {**tally.results(), "loss": loss if math.isfinite(loss) else None}

    def accuracy(self, state: State, data: Dataset) -> float:
        """Share of the samples that a classifier classifies right, 0 to 1."""
        weights, right = self.network.on_device(state), 0
        for block in self._blocks(data):
            right += int((sole(self.outputs(weights, data, block), CLASSES).argmax(dim=1) == data.labels[block]).sum())
        return right / len(data)

    def _blocks(self, data: Dataset) -> tuple[Tensor, ...]:
        blocks: tuple[Tensor, ...] = torch.arange(len(data), device=self._device).split(self._block)
        return blocks
