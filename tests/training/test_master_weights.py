"""Trainings in half precision move wide copies of weights, and go on from them to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comity.privacy.settings import OptimizerName
from comity.training.optimizers import build_optimizer, optimizer_state, restore_optimizer
from comity.training.terms import OptimizerSpec


def step(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    optimizer.zero_grad(set_to_none=True)
    model(torch.ones(2, 4, dtype=torch.bfloat16)).float().pow(2).mean().backward()
    optimizer.step()


def test_small_steps_add_up() -> None:
    model = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(model.weight)
    optimizer = build_optimizer(OptimizerSpec("sgd", 1e-4), list(model.parameters()))
    for _ in range(100):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    # A step of 1e-4 is lost on a bfloat16 of 1; a hundred are not.
    assert float(model.weight.detach()) == pytest.approx(0.99, abs=4e-3)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_training_goes_on_from_its_state(name: OptimizerName) -> None:
    spec = OptimizerSpec(name, 1e-3)
    torch.manual_seed(0)
    model = nn.Linear(4, 3).bfloat16()
    optimizer = build_optimizer(spec, list(model.parameters()))
    assert optimizer_state(optimizer) == {}
    for _ in range(3):
        step(optimizer, model)
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    kept = {name: each.clone() for name, each in optimizer_state(optimizer).items()}
    for _ in range(3):
        step(optimizer, model)
    other = nn.Linear(4, 3).bfloat16()
    other.load_state_dict(weights)
    resumed = build_optimizer(spec, list(other.parameters()))
    restore_optimizer(resumed, kept)
    for _ in range(3):
        step(resumed, other)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
