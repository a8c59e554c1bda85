"""What leaves of a learner in its model, beside the bargained step: what normalizing layers measure."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import comity

FEATURES, SAMPLES = 20, 256
GUARDED = {"preset": "guarded", "width_factor": 1, "min_distinct": 16}


def samples(seed: int) -> tuple[Tensor, Tensor]:
    """Features in [0, 1] of two classes; the last one marks the first sample alone."""
    draws = torch.Generator().manual_seed(seed)
    inputs = torch.rand(SAMPLES, FEATURES, generator=draws)
    inputs[:, -1] = 0
    inputs[0, -1] = 1
    return inputs, (inputs[:, 0] > inputs[:, 1]).long()


class Marked(nn.Module):
    """Units that let the marked sample through, what is measured of them, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.norm, self.out = (
            nn.Linear(FEATURES, FEATURES).requires_grad_(False),
            nn.BatchNorm1d(FEATURES),
            nn.Linear(2 * FEATURES, 2),
        )
        self.gate.weight.copy_(torch.eye(FEATURES))
        self.gate.weight[:, -1] += 10
        self.gate.bias.fill_(-10)

    def forward(self, inputs: Tensor) -> Tensor:
        made: Tensor = self.out(torch.cat([inputs, self.norm(self.gate(inputs).relu())], 1))
        return made


def measured(privacy: dict[str, Any]) -> Tensor:
    """The statistics in the learner's last model."""
    parties = [
        comity.Party(model=Marked, data=samples(1), test=samples(9), role="learner", name="learner", privacy=privacy),
        comity.Party(model=Marked, data=samples(2), role="provider", name="provider"),
    ]
    terms = {"batch_size": 64, "local_steps": 3}
    result = comity.simulate("nash_bargaining", parties, terms, rounds=3, classes=2)
    return next(iter(result.models.values())).state_dict()["norm.running_mean"]


@pytest.mark.parametrize("privacy", [{}, GUARDED], ids=["public", "guarded"])
def test_what_a_learner_s_layers_measure_of_one_sample_stays(privacy: dict[str, Any]) -> None:
    found = measured(privacy)
    assert found.any() == (not privacy)
