"""Sizes of the gradient rewards experiments: the paper's (section 4 and appendix B.1), and small ones."""

from __future__ import annotations

from dataclasses import replace

from comity.protocols.gradient_rewards.studies.consortium import Consortium, PartitionName

MNIST = Consortium(
    data="mnist", model="cnn-mnist", clients=10, samples=600, rounds=200, length=0.5, learning_rate=1e-3, decay=0.955
)
CIFAR = Consortium(
    data="cifar10",
    model="cnn-cifar",
    clients=10,
    samples=2000,
    rounds=200,
    length=0.15,
    learning_rate=0.015,
    batch_size=128,
)
MR = Consortium(
    data="mr",
    model="text-cnn",
    clients=5,
    samples=1919,
    rounds=200,
    length=1.0,
    optimizer="adam",
    learning_rate=5e-5,
    batch_size=128,
    classes=2,
)
SST = replace(MR, data="sst", samples=1708, learning_rate=1e-4, batch_size=256, classes=5)

DIGITS = Consortium(
    data="digits", model="mlp", clients=5, samples=60, rounds=30, length=0.25, epochs=2, learning_rate=0.15
)
"""Handwritten digits of 8 by 8 pixels, which come with scikit-learn, in place of MNIST."""
SMALL = Consortium(
    data="mnist",
    model="mlp",
    clients=5,
    samples=200,
    rounds=30,
    length=0.25,
    epochs=2,
    learning_rate=0.15,
    test_per_class=100,
)
"""Fewer images of MNIST than the paper's clients have, and a smaller model."""
SMOKE = Consortium(
    data="digits", model="mlp", clients=3, samples=40, rounds=2, length=0.5, epochs=1, learning_rate=0.15
)


def each(consortium: Consortium, partition: PartitionName) -> Consortium:
    """The same clients with another partition."""
    return replace(consortium, partition=partition)
