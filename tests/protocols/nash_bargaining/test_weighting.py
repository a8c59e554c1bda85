"""Every weighting method is held to the same: named, finite, kept in checkpoints, trained with; and to what it is known for."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from comity.errors import InvalidValue, NonFiniteValue
from comity.tensors import Layout
from comity.training.weighting import WeightedGradients, shared_and_own, weighting, weighting_names

OWN = [
    "auxinash",
    "cagrad",
    "dwa",
    "gcs",
    "imtl",
    "linear",
    "mgda",
    "nash-mtl",
    "pcgrad",
    "rlw",
    "single-task",
    "uncertainty",
]
seeds = st.integers(0, 2**32)


def rows(seed: int, tasks: int = 3, parameters: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tasks, parameters, dtype=torch.float64, generator=generator)


def weights(method: Any, gradients: Tensor) -> Tensor:
    gram = gradients @ gradients.T if method.needs_gram else None
    found: Tensor = method.weights(torch.ones(len(gradients), dtype=torch.float64), gram)
    return found


def test_all_are_named() -> None:
    assert {*OWN} <= {*weighting_names()}
    with pytest.raises(InvalidValue, match="did you mean auxinash"):
        weighting("auxinahs", 3)
    assert type(weighting("nash_mtl", 3)) is type(weighting("nash-mtl", 3))


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=8)
@given(seed=seeds)
def test_weights_are_finite_and_one_a_task(name: str, seed: int) -> None:
    found = weights(weighting(name, 3), rows(seed))
    assert found.shape == (3,)
    assert found.dtype == torch.float64
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", OWN)
def test_what_is_kept_goes_on_alike(name: str) -> None:
    one, other = weighting(name, 3), weighting(name, 3)
    for step in range(60):
        weights(one, rows(step))
        one.update(rows(step) @ rows(step).T, rows(step) @ rows(step)[0], 1.0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert torch.equal(weights(one, rows(99)), weights(other, rows(99)))


@given(seeds)
def test_auxinash_has_an_update_that_helps_all(seed: int) -> None:
    gradients = rows(seed)
    update = weights(weighting("auxinash", 3, ridge=0.0), gradients) @ gradients
    assert bool((gradients @ update > 0).all())


@given(seeds)
def test_mgda_is_the_shortest_convex_combination(seed: int) -> None:
    gradients = rows(seed)
    found = weights(weighting("mgda", 3), gradients)
    assert math.isclose(float(found.sum()), 1.0)
    assert bool((found >= 0).all())
    shortest = float((found @ gradients).norm())
    grid = torch.tensor([[a, b, 20 - a - b] for a in range(21) for b in range(21 - a)], dtype=torch.float64) / 20
    assert shortest <= float((grid @ gradients).norm(dim=1).min()) * (1 + 1e-3)


@given(seeds)
def test_imtl_projects_alike_on_all(seed: int) -> None:
    gradients = rows(seed)
    update = weights(weighting("imtl", 3), gradients) @ gradients
    projections = gradients @ update / gradients.norm(dim=1)
    assert torch.allclose(projections, projections[0].expand(3), rtol=1e-6)


def test_pcgrad_of_two_is_free_of_conflicts() -> None:
    gradients = torch.tensor([[1.0, 0.2], [-1.0, 1.0]], dtype=torch.float64)
    first = gradients[0] - (gradients[0] @ gradients[1]) / gradients[1].square().sum() * gradients[1]
    second = gradients[1] - (gradients[1] @ gradients[0]) / gradients[0].square().sum() * gradients[0]
    assert torch.allclose(weights(weighting("pcgrad", 2), gradients) @ gradients, first + second)


def test_cagrad_helps_the_worst_more_than_the_mean_does() -> None:
    gradients = torch.tensor([[4.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    update = weights(weighting("cagrad", 2), gradients) @ gradients
    mean = gradients.mean(0)
    assert float((gradients @ update).min()) > float((gradients @ mean).min())
    assert float((update - mean).norm()) <= 0.4 * float(mean.norm()) * (1 + 1e-6)


def test_gcs_drops_what_points_elsewhere() -> None:
    gradients = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)
    found = weights(weighting("gcs", 3), gradients)
    assert found.tolist() == pytest.approx([1.0, 0.5**0.5, 0.0])


def test_slow_tasks_count_for_more_in_dwa_and_sure_ones_in_uncertainty() -> None:
    slow, sure = weighting("dwa", 2, steps=1), weighting("uncertainty", 2, rate=0.1)
    for step in range(50):
        by_speed = slow.weights(torch.tensor([1.0, 0.9**step], dtype=torch.float64), None)
        by_size = sure.weights(torch.tensor([4.0, 0.1], dtype=torch.float64), None)
    assert by_speed[0] > by_speed[1]
    assert by_size[0] < by_size[1]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(8, 2) for _ in range(3))

    def losses(self, seed: int, samples: int = 12) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        features = self.trunk(torch.randn(samples, 6, generator=generator))
        targets = torch.randn(3, samples, 2, generator=generator)
        return [(head(features) - target).square().mean() for head, target in zip(self.heads, targets, strict=True)]


def weighted(net: Net, name: str, **options: Any) -> WeightedGradients:
    heads = [[*head.parameters()] for head in net.heads]
    return WeightedGradients(weighting(name, 3), [*net.trunk.parameters()], heads, **options)


def gradient(net: Net) -> Tensor:
    return torch.cat([each.grad.flatten() for each in net.parameters() if each.grad is not None])


@pytest.mark.parametrize("name", OWN)
def test_a_model_is_trained(name: str) -> None:
    net = Net()
    gradients, optimizer = weighted(net, name), torch.optim.SGD(net.parameters(), lr=0.05)
    before = net.losses(0)[0].item()
    for _ in range(80):
        optimizer.zero_grad()
        gradients.backward(net.losses(0))
        gradients.combine()
        optimizer.step()
    assert net.losses(0)[0].item() < 0.9 * before


@pytest.mark.parametrize("name", ["auxinash", "linear", "gcs"])
def test_micro_batches_add_up(name: str) -> None:
    one, other = Net(), Net()
    whole, parts = weighted(one, name), weighted(other, name)
    both = [(a + b) / 2 for a, b in zip(one.losses(1), one.losses(2), strict=True)]
    whole.backward(both)
    whole.combine()
    for seed in (1, 2):
        parts.backward([each / 2 for each in other.losses(seed)])
    parts.combine()
    assert torch.allclose(gradient(one), gradient(other), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["auxinash", "pcgrad", "rlw"])
def test_a_scaler_changes_nothing(name: str) -> None:
    one, other = Net(), Net()
    plain = weighted(one, name)
    plain.backward(one.losses(0))
    plain.combine()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled, optimizer = weighted(other, name, scaler=scaler), torch.optim.SGD(other.parameters(), lr=0.0)
    scaled.backward(other.losses(0))
    scaled.combine()
    scaler.unscale_(optimizer)
    assert torch.allclose(gradient(one), gradient(other), rtol=1e-4, atol=1e-6)


def test_a_scaler_skips_what_is_infinite_and_nobody_else_does() -> None:
    net = Net()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    gradients, optimizer = weighted(net, "auxinash", scaler=scaler), torch.optim.SGD(net.parameters(), lr=0.1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    gradients.backward([each * math.inf for each in net.losses(0)])
    gradients.combine()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    bare = weighted(net, "auxinash")
    bare.backward([each * math.inf for each in net.losses(0)])
    with pytest.raises(NonFiniteValue, match="a task's gradient"):
        bare.combine()


def test_powers_are_learned_on_the_way() -> None:
    net = Net()
    gradients, optimizer = weighted(net, "auxinash", norm=0.5), torch.optim.SGD(net.parameters(), lr=0.05)

    for step in range(20):
        optimizer.zero_grad()
        gradients.backward(net.losses(0))
        gradients.combine()
        flat = torch.cat([each.grad.flatten() for each in net.trunk.parameters() if each.grad is not None])
        assert math.isclose(float(flat.norm()), 0.5, rel_tol=1e-3)
        optimizer.step()
        if step % 5 == 4:
            gradients.update(torch.autograd.grad(net.losses(7)[0], [*net.trunk.parameters()]))
    powers = gradients.method.state_dict()["powers"]
    assert powers[0] == 0.25
    assert powers[1] != powers[2]
    assert float(powers.sum()) == pytest.approx(1.0)


def test_what_tasks_share_is_found_out() -> None:
    net = Net()
    trunk, own = shared_and_own(net.losses(0), [*net.parameters()])
    assert trunk == [*net.trunk.parameters()]
    assert own == [[*head.parameters()] for head in net.heads]
    apart = [nn.Linear(2, 1), nn.Linear(2, 1)]
    losses = [each(torch.ones(1, 2)).sum() for each in apart]
    with pytest.raises(InvalidValue, match="share no parameters"):
        shared_and_own(losses, [parameter for each in apart for parameter in each.parameters()])


@pytest.mark.parametrize("name", OWN)
def test_what_is_kept_is_tensors(name: str) -> None:
    method = weighting(name, 3)
    for step in range(60):
        weights(method, rows(step))
    kept = method.state_dict()
    assert all(isinstance(each, Tensor) for each in kept.values())
    assert Layout.unpack(Layout.of(kept).pack(kept)).keys() == kept.keys()


def test_a_step_holds_a_gradient_a_task_and_one_of_them_all() -> None:
    size = 1_000_000
    trunk = nn.Parameter(torch.zeros(size))
    directions = rows(0, 3, size).float()
    gradients = WeightedGradients(weighting("auxinash", 3), [trunk], [[], [], []])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(3):
            trunk.grad = None
            gradients.backward([trunk @ each for each in directions])
            gradients.combine()
            gradients.update([directions[0]])
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 3 * 4 * size < most < (3 + 1 + 0.5) * 4 * size


def test_what_does_not_fit_is_refused() -> None:
    net = Net()
    gradients = weighted(net, "auxinash")
    with pytest.raises(InvalidValue, match="one for each of 3 tasks"):
        gradients.backward(net.losses(0)[:2])
    with pytest.raises(InvalidValue, match="backward before combine"):
        gradients.combine()
    with pytest.raises(InvalidValue, match="combine before update"):
        gradients.update([torch.zeros(1)])
    with pytest.raises(InvalidValue, match="powers"):
        weighting("auxinash", 2, powers=[0.5, 0.6])
    with pytest.raises(InvalidValue, match=r"auxinash has no such option.*did you mean ridge"):
        weighting("auxinash", 2, rigde=0.0)
