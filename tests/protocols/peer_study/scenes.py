"""Small pools that the tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from comity.protocols.peer_study.labelling import Client, Models
from comity.protocols.peer_study.oracle import SimulatedOracle
from comity.protocols.peer_study.pool import TensorPool
from comity.protocols.peer_study.strategies import LearnedLoss, Strategy, Vaal, strategy


@cache
def digits() -> tuple[Tensor, Tensor]:
    """float32 `[samples, 1, 8, 8]` in 0 to 1, and the classes."""
    every = load_digits()
    return torch.from_numpy(every.images).float()[:, None] / 16, torch.from_numpy(every.target).long()


def mlp(hidden: int) -> Callable[[], nn.Module]:
    """Makes a perceptron for digits."""
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


MODELS = Models(mlp(64), mlp(24), classes=10)


def two_clients(seed: int, samples: int = 650, free: int = 65) -> tuple[list[Client], Tensor, Tensor]:
    """Two clients with as many samples each, most of them protected, and a test set."""
    inputs, labels = digits()
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=draws)
    test, clients = order[:497], []
    for index in range(2):
        own = order[497 + index * samples :][:samples]
        protected = torch.ones(samples, dtype=torch.bool)
        protected[torch.randperm(samples, generator=draws)[:free]] = False
        clients.append(Client(TensorPool(inputs[own]), protected, SimulatedOracle(labels[own], 10)))
    return clients, inputs[test], labels[test]


def hasty(name: str) -> Strategy:
    """A strategy; one that learns does so for a few steps."""
    asked = strategy(name)
    return replace(asked, steps=3) if isinstance(asked, LearnedLoss | Vaal) else asked
