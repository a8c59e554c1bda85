"""e, r and what queries carry: fitted on digits for a client that never saw a nine."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from comity.errors import InvalidValue, NonFiniteValue, TrainingDiverged
from comity.protocols.learning_to_help.algorithm import decide
from comity.protocols.learning_to_help.evaluation import Evaluation, by_reject_rate, evaluate
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.training import (
    Costs,
    Fitting,
    fit_rejector,
    fit_server,
    held_out_correct,
    outputs,
    predictions,
)
from comity.randomness import seeded
from comity.training import Secret

MISSING = 9
COSTS = Costs(0.25, 1.25)


def helped(seed: int) -> Evaluation:
    """A client without nines, and a server that has all classes, in one process."""
    digits = load_digits()
    inputs = torch.from_numpy(digits.images).to(torch.float32)[:, None] / 16
    labels = torch.from_numpy(digits.target).to(torch.int64)

    def parts(indices: list[int], first: int) -> list[list[int]]:
        split: list[list[int]] = train_test_split(
            indices, train_size=first, stratify=labels[indices].numpy(), random_state=seed
        )
        return split

    train, test = parts([*range(len(labels))], len(labels) - 449)
    client, others = parts(train, 300)
    server = parts(others, 150)[1]
    own = torch.tensor(client)[labels[client] != MISSING]
    secret = Secret(bytes([seed]), "s")
    with seeded(seed):
        trunk = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        local = nn.Sequential(trunk, nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))
        rejector = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 2))
    fit_server(local, inputs[own], labels[own], Fitting(), secret, 99)
    quantization = Quantization.of(outputs(trunk, inputs[own]))

    def features(indices: list[int]) -> Tensor:
        return quantization.decode(quantization.encode(outputs(trunk, inputs[indices])))

    def build() -> nn.Module:
        with seeded(seed + 1):
            return nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))

    seen = features(server)
    correct = held_out_correct(build, seen, labels[server], Fitting(), secret)
    classifier = fit_server(build(), seen, labels[server], Fitting(), secret, 0)
    knows = predictions(local, inputs[server]) == labels[server]
    fitting = Fitting(epochs=40, weight_decay=1e-2)
    fit_rejector(rejector, seen, knows, correct, costs=COSTS, fitting=fitting, secret=secret)
    asked = features(test)
    return evaluate(
        decide(outputs(rejector, asked)),
        predictions(local, inputs[test]),
        predictions(classifier, asked),
        labels[test],
        COSTS,
        missing_class=MISSING,
    )


def held(found: Evaluation) -> bool:
    """Whether help reaches the class that is missing, costs the others little, and lowers the risk."""
    local, joint = found.local["other_classes"], found.joint["other_classes"]
    missing = found.joint["missing_class"]
    assert local is not None
    assert joint is not None
    assert missing is not None
    cheaper = found.risk < min(found.risk_never_ask, found.risk_always_ask)
    return found.local["missing_class"] == 0 and missing >= 0.75 and joint >= local - 0.03 and cheaper


def test_help_reaches_the_class_that_the_client_never_saw() -> None:
    assert held(helped(0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
def test_on_each_of_ten_seeds(seed: int) -> None:
    assert held(helped(seed))


def test_a_training_is_the_same_twice_and_another_in_another_place() -> None:
    inputs, labels = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3

    def trained(place: int) -> Tensor:
        with seeded(1):
            model = nn.Linear(4, 3)
        return fit_server(model, inputs, labels, Fitting(epochs=2), Secret(b"k", "s"), place).state_dict()["weight"]

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_whether_e_is_right_is_asked_of_an_e_that_did_not_see_the_sample() -> None:
    """Labels by chance: an e remembers those it saw, and guesses the others."""
    draws = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(120, 200, generator=draws), torch.randint(4, (120,), generator=draws)

    def build() -> nn.Module:
        with seeded(1):
            return nn.Linear(200, 4)

    fitting, secret = Fitting(epochs=40, learning_rate=0.05), Secret(b"k", "s")
    remembered = predictions(fit_server(build(), inputs, labels, fitting, secret, 0), inputs) == labels
    assert remembered.double().mean() > 0.95
    assert held_out_correct(build, inputs, labels, fitting, secret).double().mean() < 0.5


def test_groups_of_samples_and_what_both_ends_cost() -> None:
    remote = torch.tensor([True, False, True, False])
    found = evaluate(
        remote,
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([9, 9, 1, 0]),
        torch.tensor([9, 9, 1, 1]),
        Costs(0.25, 1.0),
        missing_class=9,
    )
    assert found.local == {"all": 0.5, "missing_class": 0.0, "other_classes": 1.0}
    assert found.remote == {"all": 0.75, "missing_class": 1.0, "other_classes": 0.5}
    assert found.joint == {"all": 0.75, "missing_class": 0.5, "other_classes": 1.0}
    assert found.reject_rate == {"all": 0.5, "missing_class": 0.5, "other_classes": 0.5}
    assert (found.risk, found.risk_never_ask, found.risk_always_ask) == (0.375, 0.5, 0.5)


def test_fewer_questions_are_those_of_which_the_rejector_is_surest() -> None:
    scores, labels = torch.tensor([0.1, 0.9, 0.5, 0.7]), torch.tensor([0, 1, 2, 3])
    local, server = torch.tensor([0, 0, 2, 0]), torch.tensor([9, 1, 9, 3])
    assert by_reject_rate(scores, local, server, labels) == ([0.0, 0.25, 0.5, 0.75, 1.0], [0.5, 0.75, 1.0, 0.75, 0.5])
    # Of what was not asked nobody knows what the server would have said.
    asked = torch.tensor([-1, 1, -1, 3])
    assert by_reject_rate(scores, local, asked, labels) == ([0.0, 0.25, 0.5], [0.5, 0.75, 1.0])
    assert by_reject_rate(scores, local, torch.full((4,), -1), labels) == ([0.0], [0.5])


def test_a_group_without_samples_has_no_share() -> None:
    none = torch.zeros(2, dtype=torch.bool)
    labels = torch.tensor([0, 1])
    assert evaluate(none, labels, labels, labels, COSTS, missing_class=9).joint["missing_class"] is None


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(0, 2**32))
def test_eight_bits_are_near_and_nothing_leaves_the_range(low: float, width: float, seed: int) -> None:
    quantization = Quantization(low, low + width)
    shares = torch.rand(50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decoded = quantization.decode(quantization.encode(low + shares * width))
    assert (decoded - shares).abs().max() <= 0.5 / 255 + 1e-6
    outside = torch.tensor([low - width, low + 2 * width], dtype=torch.float64)
    assert quantization.encode(outside).tolist() == [0, 255]


def test_what_cannot_be_fitted_or_sent_is_refused() -> None:
    with pytest.raises(InvalidValue, match="range of features"):
        Quantization(1.0, 1.0)
    with pytest.raises(InvalidValue, match="at least one"):
        Quantization.of(torch.ones(0, 3))
    with pytest.raises(NonFiniteValue, match="finite"):
        Quantization(0.0, 1.0).encode(torch.tensor([math.nan]))
    with pytest.raises(InvalidValue, match="Folds"):
        held_out_correct(lambda: nn.Linear(2, 2), torch.ones(2, 2), torch.tensor([0, 1]), Fitting(), Secret(b"k", "s"))
    with pytest.raises(TrainingDiverged, match="learning rate"):
        fit_server(
            nn.Linear(2, 2),
            torch.full((4, 2), math.inf),
            torch.tensor([0, 1, 0, 1]),
            Fitting(epochs=1),
            Secret(b"k", "s"),
        )
