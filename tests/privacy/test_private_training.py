"""Private training: a sample's influence is bounded, noise can be drawn again, and layers that cannot be covered."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from comity.data import Dataset, Splits
from comity.errors import InvalidValue
from comity.models import build
from comity.privacy import Mechanism, PrivateGradients, require_private
from comity.tensors import State
from comity.training import (
    OptimizerSpec,
    PoissonStream,
    Resume,
    Secret,
    Supervised,
    build_optimizer,
    sampling_rate,
)

pytest.importorskip("opacus")

ADAM = OptimizerSpec("adam", 0.01)
QUIET = Mechanism(noise_multiplier=1e-9)
BATCH = 6


def data(samples: int = 24, *, scale: float = 1.0) -> Dataset:
    generator = torch.Generator().manual_seed(5)
    inputs = scale * torch.randn(samples, 3, generator=generator)
    return Dataset(inputs, torch.arange(samples) % 4, scale=1.0, classes=4)


def model() -> nn.Module:
    return build("mlp", input_shape=(3,), outputs=4, options={"hidden": 5}, seed=2)


def task(
    dataset: Dataset, privacy: Mechanism | None, net: nn.Module | None = None, secret: bytes = b"clinic"
) -> Supervised:
    return Supervised(
        net or model(),
        Splits(dataset, None),
        normalization=((), ()),
        batch_size=BATCH,
        evaluation_batch_size=10,
        secret=Secret(secret, "s-1"),
        device=torch.device("cpu"),
        privacy=privacy,
    )


def gradient(dataset: Dataset, mechanism: Mechanism, seed: int = 0) -> torch.Tensor:
    """The private gradient of a batch that is the whole data set, as one vector."""
    net = model()
    optimizer = build_optimizer(ADAM, net.parameters())
    private = PrivateGradients(net, mechanism, BATCH)

    def losses() -> torch.Tensor:
        inputs = dataset.inputs.clone().requires_grad_()
        return nn.functional.cross_entropy(net(inputs), dataset.labels, reduction="none")

    private.compute(optimizer, losses if len(dataset) else None, seed)
    return torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("norm", [0.01, 1.0])
@pytest.mark.parametrize("scale", [0.1, 1000.0])
def test_a_sample_counts_for_no_more_than_the_clipping_norm(norm: float, scale: float) -> None:
    whole = data(8, scale=scale)
    for mechanism in (Mechanism(1e-9, clipping_norm=norm), Mechanism(1.0, clipping_norm=norm)):
        with_it = gradient(whole, mechanism)
        for left_out in range(len(whole)):
            rest = torch.tensor([each for each in range(len(whole)) if each != left_out])
            # The same seed draws the same noise, which falls out of the difference.
            influence = (with_it - gradient(whole.select(rest), mechanism)).norm()
            assert float(influence) <= norm / BATCH * (1 + 1e-4) + 1e-6
        if scale > 1:
            assert float(influence) > 0.5 * norm / BATCH


def test_gradients_below_the_norm_stay_as_they_are() -> None:
    whole = data(BATCH, scale=0.1)
    net = model()
    nn.functional.cross_entropy(net(whole.inputs), whole.labels).backward()
    plain = torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])
    assert torch.allclose(gradient(whole, Mechanism(1e-9, clipping_norm=100.0)), plain, atol=1e-6)


def test_noise_is_of_the_size_that_was_asked_for_and_comes_from_the_seed() -> None:
    mechanism = Mechanism(noise_multiplier=3.0, clipping_norm=2.0)
    empty = data().select(torch.empty(0, dtype=torch.int64))
    draws = torch.stack([gradient(empty, mechanism, seed) for seed in range(200)])
    assert float(draws.std()) == pytest.approx(3.0 * 2.0 / BATCH, rel=0.03)
    assert abs(float(draws.mean())) < 0.05
    assert torch.equal(draws[7], gradient(empty, mechanism, 7))


def kept(state: State) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def trained(learner: Supervised, state: State | None = None, resume: Resume | None = None) -> list[Any]:
    samples = learner.trajectory(state or learner.initial_state, ADAM, iterations=14, period=3, round=1, resume=resume)
    return [(sample.iteration, kept(sample.state), kept(sample.optimizer)) for sample in samples]


def test_a_private_training_goes_on_from_any_sample_with_the_same_bits() -> None:
    mechanism = Mechanism.per_step(5)
    samples = trained(task(data(), mechanism))
    assert [each[0] for each in samples] == [0, 3, 6, 9, 12]
    for index, (iteration, state, optimizer) in enumerate(samples):
        rest = trained(task(data(), mechanism), state, Resume(iteration, optimizer))
        assert [each[0] for each in rest] == [each[0] for each in samples[index + 1 :]]
        for (_, one, first), (_, two, second) in zip(samples[index + 1 :], rest, strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)
            assert first.keys() == second.keys()
            assert all(torch.equal(first[name], second[name]) for name in first)


def test_noise_is_the_nodes_own() -> None:
    mechanism = Mechanism.per_step(1)
    one, same, other = (trained(task(data(), mechanism, secret=secret))[-1][1] for secret in (b"a", b"a", b"b"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_names_of_tensors_stay_as_they_are() -> None:
    private, plain = task(data(), QUIET), task(data(), None)
    assert private.layout == plain.layout
    assert trained(private)[-1][1].keys() == plain.initial_state.keys()


def test_training_with_little_noise_learns() -> None:
    learner = task(data(), Mechanism(0.01))
    *_, (_, last, _) = (
        (sample.iteration, kept(sample.state), None)
        for sample in learner.trajectory(learner.initial_state, ADAM, iterations=301, period=100, round=1)
    )
    assert learner.losses(last).sum() < 0.7 * learner.losses(learner.initial_state).sum()


def test_steps_see_each_sample_at_its_rate() -> None:
    stream = PoissonStream(200, 20, Secret(b"a", "s-1"), 1)
    sizes = [len(stream.batch(step)) for step in range(300)]
    assert sampling_rate(200, 20) == 0.1
    assert sum(sizes) / len(sizes) == pytest.approx(20, abs=1)
    assert len(set(sizes)) > 5
    assert torch.equal(stream.batch(3), PoissonStream(200, 20, Secret(b"a", "s-1"), 1).batch(3))


def test_a_batch_may_be_empty() -> None:
    learner = task(data(1).select(torch.tensor([0])), Mechanism(1.0))
    learner._private.compute(build_optimizer(ADAM, learner._network.module.parameters()), None, 0)  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in learner._network.module.parameters())


def test_batch_norm_is_named_and_group_norm_offered() -> None:
    net = build("resnet18-cifar", input_shape=(3, 32, 32), outputs=10, options={}, seed=0)
    with pytest.raises(
        InvalidValue, match=r"Layer bn1 mixes .* expected GroupNorm .* received BatchNorm2d; .*norm = 'group'"
    ):
        require_private(net)


def test_group_norm_goes_with_privacy() -> None:
    net = build("resnet18-cifar", input_shape=(3, 32, 32), outputs=10, options={"norm": "group"}, seed=0)
    images = Dataset(torch.randn(2, 3, 32, 32), torch.tensor([3, 4]), scale=1.0, classes=10)
    learner = task(images, Mechanism(1.0), net)
    first, second = learner.trajectory(learner.initial_state, ADAM, iterations=2, period=1, round=1)
    assert second.iteration == 1
    assert first.state.keys() == net.state_dict().keys()


def test_other_layers_that_opacus_cannot_take_apart() -> None:
    with pytest.raises(InvalidValue, match="does not go with this model"):
        require_private(nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 4)))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.validators", None)
    with pytest.raises(InvalidValue, match=r"comity\[dp\]"):
        require_private(model())


def test_a_buffer_that_changes_by_itself_is_named() -> None:
    """A running mean of the inputs would leave without noise."""

    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))
            self.linear = nn.Linear(4, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * inputs.detach().mean(0)
            result: torch.Tensor = self.linear(inputs - self.mean)
            return result

    model = Averaging()
    private = PrivateGradients(model, Mechanism(1.0), 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.randn(4, 4, requires_grad=True)
    with pytest.raises(InvalidValue, match="The buffer mean changes in a forward pass"):
        private.compute(optimizer, lambda: model(inputs).square().sum(1), 0)
