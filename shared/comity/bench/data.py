"""What it costs to train on a party's data, against the bare PyTorch loop over the same batches."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.data import Splits
from comity.data.objects import splits_of
from comity.models import build
from comity.training import OptimizerSpec, SampleStream, Secret, Supervised

_SAMPLES, _BATCH = 2_000, 64
_LEAST_READ, _LEAST_IN_MEMORY = 0.9, 0.98
_SECRET = Secret(b"data", "bench")


class _Pictures(TorchDataset[tuple[Tensor, int]]):
    """Pictures of MNIST's size, decoded when they are asked for."""

    def __init__(self) -> None:
        draws = np.random.default_rng(0)
        self._files = []
        self.targets = (np.arange(_SAMPLES) % 10).tolist()
        for _ in range(_SAMPLES):
            file = io.BytesIO()
            Image.fromarray(draws.integers(0, 256, (28, 28), dtype=np.uint8)).save(file, "PNG")
            self._files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(io.BytesIO(self._files[index])) as picture:
            return torch.from_numpy(np.array(picture, dtype=np.float32)[None] / 255), self.targets[index]


def run(*, quick: bool = False) -> Report:
    """Trains LeNet-5 on pictures that are read when a step asks for them, and on tensors in memory.

    Args:
        quick: Few steps, once.
    """
    steps, repeats = (5, 1) if quick else (60, 9)
    pictures = _Pictures()
    read = splits_of(pictures, "pictures", in_memory=False)
    held = splits_of(pictures, "pictures")
    batches = [SampleStream(_SAMPLES, _BATCH, _SECRET, 1).batch(step) for step in range(steps)]
    inputs, labels = held.train.all_inputs, held.train.labels
    with one_thread():
        found = interleaved(
            {
                "a DataLoader's batches, bare loop": partial(_bare, pictures, batches),
                "a DataLoader's batches, comity": partial(_trained, read, steps),
                "tensors in memory, bare loop": partial(_bare, (inputs, labels), batches),
                "tensors in memory, comity": partial(_trained, held, steps),
            },
            repeats=repeats,
        )
    of_read, read_here, of_held, held_here = (Row(name, steps / value, "steps/s") for name, value in found.items())
    rows = [of_read, read_here.over(of_read), of_held, held_here.over(of_held)]
    targets = [
        Target.at_least("read when asked for, over the bare loop", _LEAST_READ, read_here.median / of_read.median),
        Target.at_least("tensors in memory, over the bare loop", _LEAST_IN_MEMORY, held_here.median / of_held.median),
    ]
    return Report("data", describe(), rows, targets)


def _bare(source: _Pictures | tuple[Tensor, Tensor], batches: Sequence[Tensor]) -> float:
    """CPU time of the loop that everybody writes, with so many batches; of tensors it draws its own."""
    model = build("lenet5", input_shape=(1, 28, 28), outputs=10, options={}, seed=0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.process_time()
    for inputs, labels in _loaded(source, batches):
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return time.process_time() - began


def _draws(count: int) -> Iterator[Tensor]:
    return (torch.randperm(_SAMPLES)[:_BATCH] for _ in range(count))


def _loaded(source: _Pictures | tuple[Tensor, Tensor], batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(source, tuple):
        inputs, labels = source
        return ((inputs[batch], labels[batch]) for batch in _draws(len(batches)))
    return iter(DataLoader(source, batch_sampler=[batch.tolist() for batch in batches]))


def _trained(splits: Splits, steps: int) -> float:
    """CPU time of the same steps of a party's task."""
    task = Supervised(
        build("lenet5", input_shape=(1, 28, 28), outputs=10, options={}, seed=0),
        splits,
        normalization=((), ()),
        batch_size=_BATCH,
        evaluation_batch_size=_BATCH,
        secret=_SECRET,
        device=torch.device("cpu"),
    )
    training = task.trajectory(
        task.initial_state, OptimizerSpec("adam", 1e-3), iterations=steps + 1, period=steps, round=1
    )
    next(training)
    began = time.process_time()
    next(training)
    return time.process_time() - began
