"""Sizes of the experiments in which AssistDeep classifies: the paper's (section 4.2), and small ones."""

from __future__ import annotations

from dataclasses import replace

from comity.experiments.datasets import SetName
from comity.experiments.reproduction import Scale
from comity.protocols.assisted_learning.studies.comparisons import Comparison
from comity.protocols.assisted_learning.studies.pair import Pair

ALEXNET = Pair(data="cifar10", model="alexnet-cifar")
RESNET = replace(ALEXNET, model="resnet18-cifar")
SVHN = replace(ALEXNET, data="svhn")
SVHN_RESNET = replace(RESNET, data="svhn")

SMALL = Pair(
    data="digits", model="mlp", hidden=64, per_class=20, iterations=100, period=5, learning_rate=3e-3, batch_size=32
)
"""The demo's digits, with the model's width in place of another architecture."""
TINY = replace(SMALL, hidden=8, rounds=2, iterations=12, period=4)
SUBSTITUTE = (
    "in place of {} 20 handwritten digits (scikit-learn) of each class and an mlp with {} hidden units; T + T' = 100, "
    "I = 5, learning rate .003, batches of 32"
)


def scales(
    paper: Comparison, digits: Comparison, tiny: Comparison, seeds: tuple[int, ...] = (0, 1, 2)
) -> dict[Scale, Comparison]:
    """A comparison at each scale; means over seeds where they are cheap."""
    small = replace(
        digits, pairs=tuple((name.replace("digits", "MNIST"), _on_mnist(pair)) for name, pair in digits.pairs)
    )
    return {"smoke": tiny, "digits": replace(digits, seeds=seeds), "small": small, "paper": paper}


def _on_mnist(pair: Pair) -> Pair:
    """A pair with real images in place of scikit-learn's digits, and more of them."""
    sets: dict[str, SetName] = {"digits": "mnist", "digits-scaled": "mnist", "digits-blurred": "mnist-blurred"}
    return replace(
        pair,
        data=sets.get(pair.data, pair.data),
        provider_data=sets.get(pair.provider_data, pair.provider_data),
        per_class=100,
        test_per_class=100,
    )
