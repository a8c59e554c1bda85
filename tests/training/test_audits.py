"""What changes that were sent show, also where samples have no classes."""

from __future__ import annotations

import torch
from torch import nn

from comity.data import Dataset
from comity.training.audits import reconstruction


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
