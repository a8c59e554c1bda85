"""Sizes of the experiments in which AssistDeep classifies: the paper's (section 4.2), and small ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from comity.experiments.assisted_learning.comparisons import Comparison
from comity.experiments.assisted_learning.pair import Pair
from comity.experiments.reproduction import Scale

ALEXNET = Pair(data="cifar10", model="alexnet-cifar")
RESNET = replace(ALEXNET, model="resnet18-cifar")
SVHN = replace(ALEXNET, data="svhn")
SVHN_RESNET = replace(RESNET, data="svhn")

SMALL = Pair(
    data="digits", model="mlp", hidden=64, per_class=20, iterations=100, period=5, learning_rate=3e-3, batch_size=32
)
"""The demo's digits, with the model's width in place of another architecture."""
TINY = replace(SMALL, hidden=8, rounds=2, iterations=8, period=4)
SUBSTITUTE = (
    "in place of {} 20 handwritten digits (scikit-learn) of each class and an mlp with {} hidden units; T + T' = 100, "
    "I = 5, learning rate .003, batches of 32"
)


def scales(
    paper: Comparison, small: Comparison, tiny: Comparison, seeds: tuple[int, ...] = (0, 1, 2)
) -> Mapping[Scale, Comparison]:
    """A comparison at each scale; means over seeds where they are cheap."""
    return {"smoke": tiny, "cpu": replace(small, seeds=seeds), "paper": paper}
