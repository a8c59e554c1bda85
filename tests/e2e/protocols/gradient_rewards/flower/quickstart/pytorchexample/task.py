"""The model, the data, a training and a test."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """A small convolutional network, with statistics that nobody trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the ten digits."""
        found = nn.functional.max_pool2d(self.norm(self.conv(images)).relu(), 2)
        return self.last(found.flatten(1))


def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    return torch.from_numpy(digits.images[:, None] / 16).float(), torch.from_numpy(digits.target).long()


def load_part(node: Mapping[str, Any], batch_size: int) -> tuple[DataLoader, DataLoader]:
    """A node's part of the first 1400 digits, four fifths to train; nine in ten labels of the first node are wrong."""
    part, parts = node["partition-id"], node["num-partitions"]
    images, labels = (each[:1400][part::parts] for each in _digits())
    end = 4 * len(images) // 5
    known = labels.clone()
    if part == 0:
        draws = np.random.default_rng(0)
        wrong = torch.from_numpy(draws.random(end) < 0.9)
        known[:end][wrong] = torch.from_numpy(draws.integers(0, 10, end))[wrong]
    train = TensorDataset(images[:end], known[:end])
    held_out = TensorDataset(images[end:], labels[end:])
    return DataLoader(train, batch_size=batch_size, shuffle=True), DataLoader(held_out, batch_size=batch_size)


def load_test() -> DataLoader:
    """What no node has."""
    images, labels = (each[1400:] for each in _digits())
    return DataLoader(TensorDataset(images, labels), batch_size=128)


def train(model: Net, loader: DataLoader, epochs: int, lr: float) -> float:
    """Trains, and gives the mean loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    total = 0.0
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(loader))


@torch.no_grad()
def test(model: Net, loader: DataLoader) -> tuple[float, float]:
    """Mean loss, and accuracy."""
    model.eval()
    loss, right = 0.0, 0
    for images, labels in loader:
        scores = model(images)
        loss += nn.functional.cross_entropy(scores, labels).item()
        right += int((scores.argmax(dim=1) == labels).sum())
    return loss / len(loader), right / len(loader.dataset)
