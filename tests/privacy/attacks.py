"""What a peer crafts to read samples off what a party trains and sends, and how what it reads is scored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.nn.functional import normalize

from comity.data import DataConfig, Dataset, Splits, load_data
from comity.models import build
from comity.privacy.leak_guard import Rules, Verdict
from comity.tensors import State
from comity.training import OptimizerSpec, Secret, Supervised

LIMITS_OFF = Rules(fewest=1)
"""The guard's rules alone, without a limit of policy beside them."""
NO_CAP = Rules(fewest=1, most_isolated=10**9)
"""What rows that stay do by themselves, where no release is refused."""
STEEP = OptimizerSpec("sgd", 1e16)
WEAK = OptimizerSpec("sgd", 1e-3)
READABLE = OptimizerSpec("sgd", 1e10)
"""Enough to be read off float32 weights, too little to move what crafted units react to."""
FAINT = 1e-12
"""Of what a crafted last layer gives back."""


@dataclass(frozen=True, eq=False)
class Target:
    """A party's samples, as whoever attacks it would like to have them.

    Attributes:
        name: What they are called.
        splits: The samples.
    """

    name: str
    splits: Splits
    classes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", self.splits.train.classes)

    @cached_property
    def inputs(self) -> Tensor:
        """The samples as a model takes them, flat."""
        train = self.splits.train
        return train.prepare(train.inputs, (), ()).flatten(1)

    @property
    def size(self) -> int:
        return self.inputs.shape[1]

    @cached_property
    def _scored(self) -> tuple[Tensor, Tensor, Tensor]:
        """The samples, centered; their lengths; and the distance of each to its nearest other one."""
        x = self.inputs.double()
        nearest = torch.cat([torch.cdist(part, x).topk(2, largest=False).values[:, 1] for part in x.split(1000)])
        centered = x - x.mean(1, keepdim=True)
        return centered, centered.norm(dim=1), nearest

    def recovered(self, reads: Tensor) -> set[int]:
        """The samples that rows show: correlated above .95, the residual below half the distance to the nearest other."""
        centered, lengths, nearest = self._scored
        reads = reads.double()[reads.abs().amax(1) > 0] if len(reads) else reads
        if not len(reads):
            return set()
        fits = (normalize(reads - reads.mean(1, keepdim=True), eps=1e-300) @ (centered / lengths.unsqueeze(1)).T).abs()
        best = fits.argmax(1)
        residual = lengths[best] * (1 - fits.amax(1).square()).clamp_min(0).sqrt()
        return set(best[(fits.amax(1) > 0.95) & (residual < nearest[best] / 2)].tolist())

    def task(
        self,
        rules: Rules | None,
        *,
        hidden: int = 64,
        layers: int = 1,
        batch: int = 256,
        model: str = "mlp",
        session: str = "s-1",
    ) -> Supervised:
        options = {"hidden": hidden, "hidden_layers": layers} if model == "mlp" else {}
        shape = self.splits.train.input_shape
        return Supervised(
            build(model, input_shape=shape, outputs=self.classes, options=dict(options), seed=1),
            self.splits,
            normalization=((), ()),
            batch_size=batch,
            evaluation_batch_size=256,
            secret=Secret(b"hospital", session),
            device=torch.device("cpu"),
            rules=rules,
        )

    def project(self, seed: int = 0) -> Tensor:
        return torch.randn(self.size, generator=torch.Generator().manual_seed(seed))

    def imprint(self, units: int, *, tail: float = 0.0, seed: int = 0) -> State:
        """Units that fire above the quantiles of one projection (Fowl et al. 2022); those of the upper tail alone."""
        direction = self.project(seed)
        quantiles = tail + (1 - tail) * (torch.arange(units) + 0.5) / units
        last = torch.randn(self.classes, 1, generator=torch.Generator().manual_seed(seed + 1)) * FAINT
        return {
            "1.weight": direction.repeat(units, 1),
            "1.bias": -(self.inputs @ direction).quantile(quantiles),
            "3.weight": last.repeat(1, units),
            "3.bias": torch.zeros(self.classes),
        }

    def traps(self, units: int) -> State:
        """Random rows, each with a threshold that about one sample of a batch passes (Boenisch et al. 2023)."""
        draws = torch.Generator().manual_seed(5)
        weight = torch.randn(units, self.size, generator=draws)
        last = torch.randn(self.classes, 1, generator=draws) * FAINT
        bias = torch.cat([-(self.inputs @ part.T).quantile(1 - 1 / 256, dim=0) for part in weight.split(64)])
        zero = torch.zeros(self.classes)
        return {"1.weight": weight, "1.bias": bias, "3.weight": last.repeat(1, units), "3.bias": zero}

    def scaled_and_permuted(self, units: int) -> State:
        state, draws = dict(self.imprint(units)), torch.Generator().manual_seed(9)
        order, sizes = torch.randperm(units, generator=draws), torch.rand(units, generator=draws) * 4 + 0.1
        state["1.weight"] = (state["1.weight"] * sizes.unsqueeze(1))[order]
        state["1.bias"] = (state["1.bias"] * sizes)[order]
        state["3.weight"] = state["3.weight"] * (torch.rand(units, generator=draws) + 0.5)
        return state

    def with_noise(self, units: int, share: float) -> State:
        state = dict(self.imprint(units))
        noise = torch.randn(units, self.size, generator=torch.Generator().manual_seed(3))
        length = state["1.weight"].norm(dim=1, keepdim=True) / self.size**0.5
        state["1.weight"] = state["1.weight"] + share * noise * length
        return state

    def mixed(self, thresholds: int, rows: int, seed: int = 0) -> State:
        """Several rows for each threshold, whose combinations alone show samples."""
        state, draws = dict(self.imprint(thresholds, seed=seed)), torch.Generator().manual_seed(4 + seed)
        state = {
            name: tensor.repeat_interleave(rows, 0) if name.startswith("1") else tensor
            for name, tensor in state.items()
        }
        state["3.weight"] = torch.randn(self.classes, thresholds * rows, generator=draws) * FAINT
        return state

    def rotated(self, learner: Supervised, units: int) -> State:
        """An imprint in the second layer, behind a rotation that ± pairs pass through the first ReLU as it is."""
        state, crafted, size = dict(learner.initial_state), self.imprint(units), self.size
        rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(2)))
        first, second = torch.zeros(units, size), torch.zeros(units, units)
        first[:size], first[size : 2 * size] = rotation, -rotation
        turned = crafted["1.weight"] @ rotation.T
        second[:, :size], second[:, size : 2 * size] = turned, -turned
        state |= {"1.weight": first, "1.bias": torch.zeros(units), "3.weight": second, "3.bias": crafted["1.bias"]}
        return state | {"5.weight": crafted["3.weight"], "5.bias": crafted["3.bias"]}


def digits() -> Target:
    return Target("digits", load_data(DataConfig(source="digits")))


def cancer() -> Target:
    """Breast cancer: 30 correlated features, standardized, of 455 people."""
    found = load_breast_cancer()
    inputs = torch.tensor(found.data, dtype=torch.float32)
    inputs = ((inputs - inputs.mean(0)) / inputs.std(0))[:455].unsqueeze(1)
    return Target("cancer", Splits(Dataset(inputs, torch.tensor(found.target[:455]).long(), 1.0, 2), None))


def mnist() -> Target:
    """MNIST's first 4,000 images, where they are on this machine."""
    splits = load_data(DataConfig(source="torchvision:MNIST", root=Path(os.environ["COMITY_DATA"])))
    return Target("MNIST", Splits(splits.train.select(torch.arange(4000)), None))


MAKERS: dict[str, Callable[[], Target]] = {"digits": digits, "cancer": cancer, "MNIST": mnist}


def sends(
    learner: Supervised, state: State, spec: OptimizerSpec, *, period: int, count: int = 1, round: int = 1
) -> tuple[list[State], list[Verdict]]:
    """The models that leave, the first being the one that came, and what was found of each."""
    training = learner.trajectory(state, spec, iterations=period * count + 1, period=period, round=round)
    made = [({name: tensor.clone() for name, tensor in each.state.items()}, each.verdict) for each in training]
    return [state for state, _ in made], [verdict for _, verdict in made if verdict is not None][1:]


def changes_of(states: list[State], name: str) -> Iterator[Tensor]:
    """The changes of a layer's rows between neighbouring models."""
    for one, two in pairwise(states):
        yield two[name].double() - one[name].double()


def rows_of(states: list[State], name: str) -> Tensor:
    """All of them."""
    return torch.cat(list(changes_of(states, name)))


def alone_and_in_pairs(states: list[State], name: str) -> Tensor:
    """The changes of rows, and sum and difference of each with the one most like it."""
    reads = []
    for change in changes_of(states, name):
        unit = normalize(change, eps=1e-300)
        near = (unit @ unit.T).abs().fill_diagonal_(-1).argmax(1)
        reads += [change, change - change[near], change + change[near]]
    return torch.cat(reads)


def neighbours(states: list[State], name: str) -> Tensor:
    """The changes of rows, and the differences of neighbouring ones, whose thresholds follow each other."""
    reads = []
    for change in changes_of(states, name):
        reads += [change, change[1:] - change[:-1]]
    return torch.cat(reads)


def unmixed(state: State, start: State, thresholds: int, rows: int) -> Tensor:
    """What mixed rows show to whoever knows which combination of each threshold's rows is which."""
    change = state["1.weight"].double() - start["1.weight"].double()
    columns = start["3.weight"].double()
    weights = columns.T.reshape(thresholds, rows, -1)
    reads = torch.cat(
        [
            torch.linalg.pinv(weight) @ center
            for weight, center in zip(weights, change.view(thresholds, rows, -1), strict=True)
        ]
    )
    per_class = reads.view(thresholds, len(columns), -1)
    return torch.cat([reads, (per_class[1:] - per_class[:-1]).flatten(0, 1)])
