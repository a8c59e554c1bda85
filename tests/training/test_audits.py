"""What changes that were sent show, also where samples have no classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comity.contract import Preprocessing
from comity.data import Dataset, Splits
from comity.tasks import kind_for, objective_of
from comity.training.audits import membership, reconstruction
from comity.training.samples import Secret
from comity.training.supervised import Supervised
from comity.training.terms import OptimizerSpec


def test_targets_that_are_no_classes_have_no_counts() -> None:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 20, generator=draws)
    data = Dataset(inputs, torch.randn(40, 2, generator=draws), 1.0, 2, task="regression")
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 2))
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    of_one = {"1.weight": torch.stack([inputs[7], torch.zeros(20)]), "1.bias": torch.tensor([1.0, 0.0])}

    found = reconstruction([of_one], data, model, initial)

    assert found["samples_shown"] == 1
    assert not {"label_counts_correlation", "inverted"} & set(found)


@pytest.mark.parametrize("frozen", ["1.weight", "1.bias"])
def test_what_was_not_sent_is_as_the_model_has_it(frozen: str) -> None:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 20, generator=draws)
    data = Dataset(inputs, torch.arange(40) % 3, 1.0, 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
    dict(model.named_parameters())[frozen].requires_grad_(requires_grad=False)
    change = {"1.weight": torch.stack([inputs[7], torch.zeros(20), torch.zeros(20)]), "1.bias": torch.ones(3)}
    change.pop(frozen)

    found = reconstruction([change], data, model, {name: torch.zeros_like(each) for name, each in change.items()})

    assert found["first_layer"] == (None if frozen == "1.weight" else "1")
    assert found.get("samples_shown", 1) == 1
    assert ("label_counts_correlation" in found) == (frozen == "1.weight")
    assert found["inverted"] > 0


class Adapted(nn.Module):
    """A layer that is not trained, and beside it two of low rank that are, as LoRA has them."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(20, 3).requires_grad_(requires_grad=False)
        self.down = nn.Linear(20, 2, bias=False)
        self.up = nn.Linear(2, 3, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.base(inputs) + self.up(self.down(inputs))
        return found


def test_an_adapter_of_the_first_layer_shows_samples() -> None:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 20, generator=draws)
    data, model = Dataset(inputs, torch.arange(40) % 3, 1.0, 3), Adapted()
    initial = {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}

    found = reconstruction([{"down.weight": inputs[:2], "up.weight": torch.ones(3, 2)}], data, model, initial)

    assert (found["first_layer"], found["samples_shown"]) == ("down", 2)


@pytest.mark.parametrize(("kind", "has"), [("classification", True), ("regression", False)])
def test_lira_is_of_classes_alone(kind: str, has: bool) -> None:
    draws = torch.Generator().manual_seed(0)

    def samples(count: int) -> Dataset:
        inputs = torch.randn(count, 4, generator=draws)
        if kind == "classification":
            return Dataset(inputs, torch.arange(count) % 2, 1.0, 2)
        return Dataset(inputs, torch.randn(count, 2, generator=draws), 1.0, 2, task=kind)

    splits = Splits(samples(12), samples(8))
    objective = objective_of(kind_for(splits).of(splits, Preprocessing()))

    def task(given: Splits) -> Supervised:
        return Supervised(
            nn.Linear(4, 2),
            given,
            normalization=((), ()),
            batch_size=4,
            evaluation_batch_size=16,
            secret=Secret(b"own", "session"),
            device=torch.device("cpu"),
            objective=objective,
        )

    found = membership([task(splits).initial_state], splits, task, OptimizerSpec("sgd", 0.1), 2)
    assert ("lira_auc" in found, "shadow_models" in found) == (has, has)
    assert 0 <= found["loss_auc"] <= 1


def test_rows_that_mix_a_few_samples_are_unmixed() -> None:
    draws = torch.Generator().manual_seed(0)
    # Samples whose values have nothing to do with each other and are mostly small: what independent components are.
    inputs = torch.randn(40, 400, generator=draws) ** 3
    data = Dataset(inputs, torch.arange(40) % 12, 1.0, 12)
    model = nn.Sequential(nn.Flatten(), nn.Linear(400, 12))
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def mixed(samples: int) -> dict[str, torch.Tensor]:
        return {"1.weight": torch.randn(12, samples, generator=draws) @ inputs[:samples], "1.bias": torch.zeros(12)}

    few = reconstruction([mixed(6)], data, model, initial)
    all_of_them = reconstruction([mixed(40)], data, model, initial)

    assert few["unmixed_samples_shown"] == 6
    assert few["samples_shown"] < 6
    assert all_of_them["unmixed_samples_shown"] == 0
