"""Layers that a peer crafts, or freezes, so that of all samples one alone comes through, whatever else comes beside it.

Each shows the sample that lies furthest along a direction, to a correlation above .99, where nothing is held back; and with
the rules and limits that a node has by default, nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from comity.contract import LoraSpec, ModelForm
from comity.models.form import give_form
from comity.privacy.leak_guard import Rules
from comity.tensors import State
from comity.training import OptimizerSpec, Secret, Supervised
from tests.privacy.attacks import Target, digits, sends

PIXELS = 64
STEEP = 100.0
SMALL = 1e-2


@cache
def target() -> Target:
    return digits()


def direction() -> Tensor:
    return target().project() / 8


def last(values: Tensor) -> float:
    """What one sample passes."""
    return float(values.sort().values[-2:].mean())


def fires(layer: nn.Linear, units: int) -> nn.Linear:
    """A pixel for each unit, of the sample that lies furthest, and nothing of the others."""
    with torch.no_grad():
        layer.weight[:units] = SMALL * STEEP * direction()
        layer.weight[:units, :units] += SMALL * torch.eye(units)
        layer.bias[:units] = -SMALL * STEEP * last(target().inputs @ direction())
    return layer


def gate(outputs: int = 8) -> nn.Linear:
    """Units that the sample passes alone."""
    layer = nn.Linear(PIXELS, outputs)
    with torch.no_grad():
        layer.weight[:] = direction()
        layer.bias[:] = -last(target().inputs @ direction())
    return layer


class Headed(nn.Module):
    """A layer that fires, frozen, what comes after, and a head that begins with zeros."""

    def __init__(self, units: int, between: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.fires = fires(nn.Linear(PIXELS, PIXELS), units).requires_grad_(False)
        self.between = between()
        self.out = nn.Linear(PIXELS, 10)
        nn.init.zeros_(self.out.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        made: Tensor = self.out(relu(self.between(relu(self.fires(inputs.flatten(1))))))
        return made


class Gated(nn.Module):
    """A layer of which comes back what one sample gives, beside the inputs as they are."""

    def __init__(self, normalizing: nn.LayerNorm | nn.RMSNorm) -> None:
        super().__init__()
        self.norm = normalizing
        nn.init.zeros_(normalizing.weight)
        self.gate, self.out = gate().requires_grad_(False), nn.Linear(8, 10).requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        made: Tensor = self.out(relu(self.gate(SMALL * self.norm(inputs.flatten(1)) + inputs.flatten(1))))
        return made


class Masked(nn.Module):
    """Units that say how bright each pixel is, of which the biases alone are trained, and one sample gives anything back."""

    def __init__(self) -> None:
        super().__init__()
        self.levels, self.down, self.gate, self.out = (
            nn.Linear(64, 64 * 16),
            nn.Linear(64 * 16, 1),
            gate(1),
            nn.Linear(1, 10),
        )
        with torch.no_grad():
            self.levels.weight[:] = torch.eye(PIXELS).repeat_interleave(16, 0)
            self.levels.bias[:] = -(torch.arange(16) + 0.5).repeat(PIXELS) / 16
            self.down.weight.fill_(1e-4)
        self.requires_grad_(False)
        self.levels.bias.requires_grad_(True)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1)
        made: Tensor = self.out(self.down(relu(self.levels(x))) * (self.gate(x) > 0))
        return made


class Sliding(nn.Module):
    """A convolution of few positions, which one sample passes at one of them."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 32, kernel, stride)
        images = target().inputs.view(-1, 1, 8, 8)
        along = normalize(torch.randn(1, 1, kernel, kernel, generator=torch.Generator().manual_seed(1)).flatten(1))
        along = along.view(1, 1, kernel, kernel)
        found = nn.functional.conv2d(images, along, stride=stride)
        with torch.no_grad():
            self.convolution.weight[:] = along
            self.convolution.bias[:] = -last(found.flatten())  # type: ignore[index]
        self.out = nn.Linear(32 * found[0].numel(), 10)

    def forward(self, inputs: Tensor) -> Tensor:
        made: Tensor = self.out(relu(self.convolution(inputs.view(-1, 1, 8, 8))).flatten(1))
        return made


def adapted() -> nn.Module:
    """Adapters over a frozen base, of as many ranks as there are pixels."""
    model = nn.Sequential(nn.Flatten(), fires(nn.Linear(PIXELS, PIXELS), 63), nn.ReLU(), nn.Linear(PIXELS, 10))
    give_form(model, ModelForm(lora=LoraSpec(rank=64, alpha=8, layers=("3",))))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            (nn.init.zeros_ if "lora_A" in name else nn.init.normal_)(parameter)
    return model


def weight_normed() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), gate(), nn.ReLU(), nn.Linear(8, 10))
    model[1] = nn.utils.parametrizations.weight_norm(gate())
    return model


def of_wrong_statistics() -> nn.Module:
    norm = nn.BatchNorm1d(PIXELS)
    assert norm.running_mean is not None
    norm.running_mean.fill_(-1e6)
    return norm


def changes(sent: list[State], name: str) -> Tensor:
    """The changes of a tensor, row by row."""
    found = torch.stack([two[name].double() - one[name].double() for one, two in pairwise(sent)])
    return found.flatten(0, 1) if found.ndim > 2 else found


def shown(reads: Tensor, places: Tensor | None = None) -> float:
    """The greatest correlation of what is read with a sample, or with some of its pixels."""
    reads, inputs = reads[reads.abs().amax(1) > 0], target().inputs.double()
    if places is not None:
        inputs = inputs[:, places]
    reads, inputs = (normalize(each - each.mean(1, keepdim=True), eps=1e-300) for each in (reads, inputs))
    return float((reads @ inputs.T).abs().max()) if len(reads) else 0.0


def sent_of(model: nn.Module, rules: Rules | None) -> list[State]:
    learner = Supervised(
        model,
        target().splits,
        normalization=((), ()),
        batch_size=256,
        evaluation_batch_size=256,
        secret=Secret(b"hospital", "s-1"),
        device=torch.device("cpu"),
        rules=rules,
    )
    start = {name: tensor.clone() for name, tensor in learner.initial_state.items()}
    return sends(learner, start, OptimizerSpec("sgd", 0.1), period=5, count=3)[0]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[list[State]], float]]] = {
    "a head beside an input that all have": (
        lambda: Headed(63),
        lambda sent: shown(changes(sent, "out.weight")[:, :63], torch.arange(63)),
    ),
    "a head beside inputs that all have": (
        lambda: Headed(40),
        lambda sent: shown(changes(sent, "out.weight")[:, :40], torch.arange(40)),
    ),
    "a head behind statistics that are far off": (
        lambda: Headed(64, of_wrong_statistics),
        lambda sent: shown(changes(sent, "out.weight")),
    ),
    "adapters over a frozen base": (
        adapted,
        lambda sent: shown(changes(sent, "3.lora_A.default.weight")[:, :63], torch.arange(63)),
    ),
    "the weight of a LayerNorm": (
        lambda: Gated(nn.LayerNorm(PIXELS)),
        lambda sent: shown(changes(sent, "norm.weight") / direction().double()),
    ),
    "the weight of a RMSNorm": (
        lambda: Gated(nn.RMSNorm(PIXELS)),
        lambda sent: shown(changes(sent, "norm.weight") / direction().double()),
    ),
    "what a BatchNorm measures": (
        lambda: Headed(64, lambda: nn.BatchNorm1d(PIXELS)),
        lambda sent: shown(changes(sent, "between.running_mean")),
    ),
    "convolutions of four positions": (
        lambda: Sliding(7, 1),
        lambda sent: shown(
            changes(sent, "convolution.weight").flatten(1), torch.arange(64).view(8, 8)[:7, :7].flatten()
        ),
    ),
    "convolutions of sixteen positions": (
        lambda: Sliding(5, 1),
        lambda sent: max(
            shown(
                changes(sent, "convolution.weight").flatten(1),
                torch.arange(64).view(8, 8)[down : down + 5, across : across + 5].flatten(),
            )
            for down in range(4)
            for across in range(4)
        ),
    ),
    "biases alone": (
        Masked,
        lambda sent: shown((changes(sent, "levels.bias").view(-1, PIXELS, 16).abs() > 0).double().sum(2)),
    ),
    "a weight that another gives its length": (
        weight_normed,
        lambda sent: shown(changes(sent, "1.parametrizations.weight.original1")),
    ),
}
LEAST = {"biases alone": 0.8, "a weight that another gives its length": 0.85}


@pytest.mark.parametrize("case", CASES)
def test_what_lets_one_sample_through_shows_nothing_of_it(case: str) -> None:
    make, read = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = make(), make()
    assert read(sent_of(models[0], None)) > LEAST.get(case, 0.99)
    assert read(sent_of(models[1], Rules())) < 0.75
