"""Batches: independent draws without replacement, that follow from their step alone and give no sample away."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from comity.data import DataConfig, load_data
from comity.training import SampleStream, Secret

SECRET = Secret(b"clinic", "s-1")


@pytest.mark.parametrize(
    ("samples", "batch_size"), [(7, 3), (7, 7), (7, 9), (4096, 64), (4097, 64), (4097, 2000), (100_000, 20_000)]
)
def test_a_batch_holds_each_sample_once_and_follows_from_its_step(samples: int, batch_size: int) -> None:
    stream = SampleStream(samples, batch_size, SECRET, 2)
    batches = [stream.batch(step) for step in range(4)]
    for batch in batches:
        assert len(batch) == len(batch.unique()) == min(samples, batch_size)
        assert 0 <= int(batch.min()) <= int(batch.max()) < samples
    again = SampleStream(samples, batch_size, SECRET, 2)
    assert all(torch.equal(again.batch(step), batches[step]) for step in (3, 0, 2, 1))
    others = (SampleStream(samples, batch_size, SECRET, 3), SampleStream(samples, batch_size, Secret(b"lab", "s-1"), 2))
    assert all(not torch.equal(other.batch(0), batches[0]) for other in others)
    assert not torch.equal(batches[0], batches[1])


@pytest.mark.parametrize(("samples", "batch_size"), [(50, 10), (5000, 200)])
def test_every_sample_comes_as_often_as_any_other_and_no_batch_knows_of_another(samples: int, batch_size: int) -> None:
    stream = SampleStream(samples, batch_size, SECRET, 1)
    batches = torch.stack([stream.batch(step) for step in range(1000)])
    seen = torch.bincount(batches.flatten(), minlength=samples).double()
    mean, deviation = 1000 * batch_size / samples, (1000 * batch_size / samples * (1 - batch_size / samples)) ** 0.5
    # Means of thousands of tosses: chi-square over its degrees of freedom is close to 1.
    chi_square = float(((seen - mean) / deviation).square().sum() / (samples - 1))
    assert abs(chi_square - 1) < 6 * (2 / samples) ** 0.5
    first = one_hot(batches[:-1], samples).sum(1) if samples < 100 else None
    if first is not None:
        after = one_hot(batches[1:], samples).sum(1)
        shared = float((first * after).sum(1).double().mean())
        assert shared == pytest.approx(batch_size**2 / samples, abs=0.25)


def test_a_draw_of_many_samples_takes_no_longer_than_one_of_few() -> None:
    def seconds(samples: int) -> float:
        stream, began = SampleStream(samples, 256, SECRET, 1), time.process_time()
        for step in range(50):
            stream.batch(step)
        return time.process_time() - began

    seconds(5000)
    assert min(seconds(50_000_000) for _ in range(3)) < 0.1 + 5 * min(seconds(50_000) for _ in range(3))


@pytest.mark.parametrize(("batch", "steps"), [(245, 11), (256, 784), (674, 2), (1283, 1)])
def test_many_steps_give_no_sample_away(batch: int, steps: int) -> None:
    """k steps with k·B one off a multiple of n: the summed gradient less that of all samples was one sample."""
    train = load_data(DataConfig(source="digits")).train
    x, y = train.inputs.float().flatten(1)[:1347] / 16, train.labels[:1347]
    n = len(x)
    # Zero weights of a linear model, and a learning rate that does not move them.
    gradients = torch.full((n, 10), 0.1).sub(one_hot(y, 10))

    def summed(indices: torch.Tensor) -> torch.Tensor:
        return gradients[indices].double().T @ x[indices].double()

    weights = torch.zeros(10, x.shape[1], requires_grad=True)
    cross_entropy(x @ weights.T, y, reduction="sum").backward()
    whole = summed(torch.arange(n))
    assert weights.grad is not None
    assert torch.allclose(whole.float(), weights.grad, atol=1e-2)
    found = 0
    for round in range(1, 6):
        stream = SampleStream(n, batch, SECRET, round)
        total = sum((summed(stream.batch(step)) for step in range(steps)), torch.zeros_like(whole))
        one = total - steps * batch / n * whole
        row = one[one.abs().sum(1).argmax()]
        found += bool(torch.cosine_similarity(row.abs()[None], x.double()).max() > 0.99)
    assert found == 0
