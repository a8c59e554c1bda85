"""Batches: independent draws without replacement, that follow from their step alone and give no sample away."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from comity.data import DataConfig, load_data
from comity.errors import PolicyRefusal
from comity.privacy.limits import TrainingPlan, require_within
from comity.privacy.settings import PrivacySettings
from comity.training import OptimizerSpec, SampleStream, Secret
from comity.training.optimizers import build_optimizer, set_rate
from comity.training.samples import BalancedStream

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


def test_balanced_batches_have_each_class_as_often_as_any_and_each_sample_once() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [3] * 10)
    stream = BalancedStream(labels, 9, SECRET, 1)
    batches = torch.stack([stream.batch(step) for step in range(2000)])
    assert all(len(batch.unique()) == 9 for batch in batches)
    classes = torch.bincount(labels[batches].flatten(), minlength=4).double() / batches.numel()
    assert classes[2] == 0
    # A batch of 9 exhausts a class of ten somewhat.
    assert classes[[0, 1, 3]].tolist() == pytest.approx([1 / 3] * 3, abs=0.04)
    of_first = torch.bincount(batches.flatten(), minlength=1000)[:900].double()
    assert abs(float(of_first.var() / of_first.mean()) - 1) < 0.3
    again = BalancedStream(labels, 9, SECRET, 1)
    assert torch.equal(again.batch(7), batches[7])
    assert not torch.equal(BalancedStream(labels, 9, SECRET, 2).batch(7), batches[7])
    everything = BalancedStream(labels, 5000, SECRET, 1).batch(0)
    assert everything.sort().values.tolist() == list(range(1000))


def test_fewer_distinct_samples_stand_behind_balanced_batches() -> None:
    plain = TrainingPlan(32, 5, 50, "adam", 1e-3, is_private=False)
    balanced = replace(plain, is_balanced=True, classes=(900, 90, 10))
    assert balanced.distinct(1000) < plain.distinct(1000)
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    stream = BalancedStream(labels, 32, SECRET, 1)
    seen = [len(torch.cat([stream.batch(5 * at + step) for step in range(5)]).unique()) for at in range(200)]
    assert balanced.distinct(1000) <= sum(seen) / len(seen) < 1.3 * balanced.distinct(1000)
    settings = PrivacySettings(min_distinct=120, width_factor=0)
    require_within(settings, plain, 1000, {"mlp": 8}, "clinic")
    with pytest.raises(PolicyRefusal, match="min_distinct"):
        require_within(settings, balanced, 1000, {"mlp": 8}, "clinic")


def test_too_few_samples_for_any_batch_are_said_to_be_too_few() -> None:
    plan = TrainingPlan(32, 5, 50, "adam", 1e-3, is_private=False)
    with pytest.raises(PolicyRefusal, match=r"more than 64 samples, received 50; train on more"):
        require_within(PrivacySettings(), plan, 50, {"mlp": 8}, "clinic")


def test_learning_rates_fall_within_a_training() -> None:
    spec = OptimizerSpec("sgd", 1.0, decay="linear", last_share=0.2)
    assert [round(spec.rate(step, 4), 3) for step in (0, 2, 4)] == [1.0, 0.6, 0.2]
    assert OptimizerSpec("sgd", 1.0, decay="cosine").rate(2, 4) == pytest.approx(0.5)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(spec, [weight])
    set_rate(optimizer, spec, 2, 4)
    weight.grad = torch.ones(1)
    optimizer.step()
    assert float(weight.detach()) == pytest.approx(0.4)


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
