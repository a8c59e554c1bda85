"""What PyTorch allows works in every protocol that trains samples, or is refused by name before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import comity
from comity.errors import ComityError
from comity.front.result import Result

PROTOCOLS = ("assisted_learning", "gradient_rewards")
TERMS: Mapping[str, dict[str, Any]] = {
    "assisted_learning": {
        "optimizer": "adam",
        "learning_rate": 0.01,
        "batch_size": 8,
        "iterations": 12,
        "sampling_period": 4,
        "evaluation_batch_size": 32,
    },
    "gradient_rewards": {"clients": 3, "min_clients": 3, "learning_rate": 0.1, "batch_size": 8, "epochs": 2},
}
FEATURES, CLASSES = 16, 3


def samples(party: int, count: int = 40) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(party)
    labels = torch.arange(count) % CLASSES
    inputs = torch.rand(count, FEATURES, generator=draws)
    inputs[torch.arange(count), labels] += 1
    return inputs, labels


def run(
    protocol: str, model: Callable[[], nn.Module], rounds: int = 2, form: Mapping[str, Any] | None = None, **terms: Any
) -> Result:
    roles = ["learner", "provider"] if protocol == "assisted_learning" else ["client"] * 3
    parties = [
        comity.Party(model=model, form=form or {}, data=samples(place), test=samples(9), role=role, name=f"p{place}")
        for place, role in enumerate(roles)
    ]
    if protocol == "gradient_rewards":
        parties.append(comity.Party(model=model, role="server", name="server"))
    return comity.simulate(protocol, parties, {**TERMS[protocol], **terms}, rounds=rounds, classes=CLASSES)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.out = nn.Linear(FEATURES, CLASSES)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.out(self.second(self.first(inputs).relu()).relu())
        return answer


class Buffers(nn.Module):
    """Every sort of buffer, and a parameter of every odd size."""

    mask: Tensor
    scale: Tensor
    count: Tensor
    places: Tensor
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0]))
        self.register_buffer("scale", torch.full((FEATURES,), 0.5), persistent=False)
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("places", torch.arange(FEATURES, dtype=torch.int32))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        # In evaluation too.
        self.calls += 1
        weights = (self.mask + torch.zeros(3)).softmax(0)
        answer: Tensor = self.out((inputs * self.scale)[:, self.places.long()]) * self.factor + weights
        return answer * self.count


def of_dtype(dtype: torch.dtype) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))
        return layers.to(dtype)

    return build


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(CLASSES))


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(9, 4, sparse=True), nn.Linear(4 * FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.out(self.words((inputs * 4).long()).flatten(1))
        return answer


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    return model


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def channels_last() -> nn.Module:
    model = nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, CLASSES)
    )
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class Renormed(nn.Module):
    """Writes to its weights in every forward pass, also in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(9, 4, max_norm=0.5), nn.Linear(4 * FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.out(self.words((inputs * 4).long()).flatten(1))
        return answer


def laid_out_otherwise() -> nn.Module:
    model = nn.Sequential(nn.Linear(FEATURES, CLASSES))
    model[0].weight = nn.Parameter(torch.randn(FEATURES, CLASSES).t())
    return model


def normed_by_weight() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(FEATURES, 8))
    second = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
    return nn.Sequential(first, nn.ReLU(), second, nn.Linear(8, CLASSES))


KINDS: Mapping[str, Callable[[], nn.Module]] = {
    "tied weights": Tied,
    "buffers of every sort": Buffers,
    "bfloat16": of_dtype(torch.bfloat16),
    "float16": of_dtype(torch.float16),
    "float64": of_dtype(torch.float64),
    "lazy": lazy,
    "sparse gradients": Sparse,
    "frozen in part": half_frozen,
    "batch normalization": normed,
    "channels last": channels_last,
    "embeddings with a greatest norm": Renormed,
    "laid out otherwise": laid_out_otherwise,
    "parametrized": normed_by_weight,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_any_kind_is_trained_and_can_be_used(kind: str, protocol: str) -> None:
    result = run(protocol, KINDS[kind])
    assert result.ledger_verified
    model = next(iter(result.models.values()))
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        answer = model(
            samples(9)[0].to(dtype if "embeddings" not in kind and kind != "sparse gradients" else torch.float32)
        )
    assert answer.shape == (40, CLASSES)
    assert answer.isfinite().all()
    fresh = KINDS[kind]()
    if kind != "frozen in part":
        return
    assert len(result.models) >= 1
    assert [name for name, each in fresh.named_parameters() if each.requires_grad] == ["3.weight", "3.bias"]
    # What is frozen is as it began, its statistics too.
    assert torch.equal(model.state_dict()["1.running_mean"], torch.zeros(8))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tied_weights_stay_tied(protocol: str) -> None:
    for model in run(protocol, Tied).models.values():
        assert isinstance(model, Tied)
        assert torch.equal(model.second.weight, model.first.weight)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batch_normalization_takes_batches_of_one(protocol: str) -> None:
    assert run(protocol, normed, batch_size=1).ledger_verified


class Drawing(nn.Module):
    """Draws in every way but by a layer that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = nn.LSTM(4, 8, 2, dropout=0.5, batch_first=True)
        self.leaky, self.out = nn.RReLU(), nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        last = self.lines(inputs.view(-1, 4, 4))[0][:, -1]
        # In evaluation too.
        drawn = functional.dropout(self.leaky(last), 0.2, training=True)
        answer: Tensor = self.out(drawn)
        return answer


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whatever_a_layer_draws_is_seeded(protocol: str) -> None:
    first = run(protocol, Drawing)
    torch.rand(7)
    assert run(protocol, Drawing).digest == first.digest


class Extra(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: object) -> None:
        del state


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(FEATURES, CLASSES, dtype=torch.complex64))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.to(torch.complex64) @ self.weights).abs()


class Answers(nn.Linear):
    def __init__(self, how: str) -> None:
        super().__init__(FEATURES, CLASSES)
        self.how = how

    def forward(self, inputs: Tensor) -> Any:
        found = super().forward(inputs)
        return {"logits": found} if self.how == "dict" else (found, None)


def data_parallel() -> nn.Module:
    return nn.DataParallel(nn.Linear(FEATURES, CLASSES))


def compiled() -> Any:
    return torch.compile(nn.Linear(FEATURES, CLASSES), backend="eager")


class DrawsElsewhere(nn.Linear):
    """Draws in training alone, by a generator that is not torch's."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        drawn = 1 + np.random.rand() if self.training else 1.0  # noqa: NPY002 - as people write it
        return super().forward(inputs * drawn)


class Remembers(nn.Linear):
    """Changes its weights when it is evaluated."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.bias.data += 0.1
        return super().forward(inputs)


class LosesItsNumbers(nn.Linear):
    """Answers with numbers until its first step."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where((self.bias == 0).all(), super().forward(inputs), torch.nan)


REFUSED: Mapping[str, tuple[Callable[[], Any], str]] = {
    "extra state": (Extra, r"_extra_state of the model cannot cross"),
    "complex": (Complex, "tensor weights cannot be sent"),
    "data parallel": (data_parallel, r"DataParallel.*\.module"),
    "compiled": (compiled, r"OptimizedModule.*\._orig_mod"),
    "a dict": (lambda: Answers("dict"), "logits"),
    "a tuple": (lambda: Answers("tuple"), "tuple"),
    "numpy's generator": (DrawsElsewhere, r"nothing seeds.*numpy\.random"),
    "weights that change in evaluation": (Remembers, "answers otherwise|changes its weights"),
    "no numbers after a step": (LosesItsNumbers, "diverged|zeros only"),
    "a class less": (lambda: nn.Linear(FEATURES, CLASSES - 1), r"\[8, 3\]"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(kind: str, protocol: str) -> None:
    model, message = REFUSED[kind]
    with pytest.raises(ComityError, match=message) as caught:
        run(protocol, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("how", "answer"), [("dict", "logits"), ("tuple", "0")])
def test_the_part_of_an_answer_that_is_meant_is_trained(how: str, answer: str, protocol: str) -> None:
    result = run(protocol, lambda: Answers(how), form={"answer": answer})
    assert result.ledger_verified
    model = next(iter(result.models.values()))
    assert model(samples(9)[0]).shape == (40, CLASSES)


class Unused(nn.Linear):
    """Has a layer that the forward pass leaves out."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        self.spare = nn.Linear(4, 4)


def frozen_weight() -> nn.Module:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    model[0].weight.requires_grad_(False)
    return model


PRIVATE: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "a layer that is not called": (Unused, 8),
    "a layer frozen in part": (frozen_weight, 8),
    "tied weights": (Tied, 8),
    "batches of one": (of_dtype(torch.float32), 1),
    "batches of more than there are": (of_dtype(torch.float32), 4096),
}
PRIVACY = {"scope": "per_step", "epsilon": 5.0}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", PRIVATE)
def test_a_model_of_any_kind_is_trained_with_noise(kind: str, protocol: str) -> None:
    pytest.importorskip("opacus")
    model, batch_size = PRIVATE[kind]
    assert run(protocol, model, batch_size=batch_size, privacy=PRIVACY).ledger_verified


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_layers_that_no_sample_can_be_taken_out_of_are_refused_by_name(protocol: str) -> None:
    pytest.importorskip("opacus")
    with pytest.raises(ComityError, match=r"privacy does not go with this model.*ParametrizedLinear") as caught:
        run(protocol, normed_by_weight, privacy=PRIVACY)
    assert "\n" not in str(caught.value)
