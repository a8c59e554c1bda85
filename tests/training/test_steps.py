"""How steps are made: in parts, in less precision, with heads that are weighed; and that each goes on from any snapshot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comity.contract import Preprocessing
from comity.data import Splits
from comity.data.targets import labelled
from comity.errors import InvalidValue
from comity.privacy import Mechanism
from comity.privacy.leak_guard import Rules
from comity.tasks import kind_for, objective_of
from comity.training import OptimizerSpec, Resume, Secret, Snapshot, Supervised
from comity.training.hypergradients import conjugate_gradient, hessian_product, neumann
from comity.training.settings import TrainingSettings, WeightingSettings
from comity.training.stepping import Steps

SGD = OptimizerSpec("sgd", 0.05)
ADAM = OptimizerSpec("adam", 0.01)


class Net(nn.Module):
    """A trunk with a head for the place of a pattern, and one for how bright it is."""

    def __init__(self, *, half: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU())
        self.place = nn.Linear(24, 2)
        self.depth = nn.Linear(24, 1)
        if half:
            self.to(torch.bfloat16)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.trunk(inputs)
        return {"place": self.place(features), "depth": self.depth(features)}


def splits(count: int = 48) -> Splits:
    inputs = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    places = (inputs[:, 0, :3].mean((1, 2)) > inputs[:, 0, 3:].mean((1, 2))).long()
    return Splits(labelled(inputs, {"place": places, "depth": 2 * inputs.mean((1, 2, 3))}, 1.0, "patterns"), None)


def task(training: TrainingSettings | None = None, *, half: bool = False, **changes: Any) -> Supervised:
    data = splits()
    settings: dict[str, Any] = {
        "normalization": ((), ()),
        "batch_size": 16,
        "evaluation_batch_size": 64,
        "secret": Secret(b"clinic", "s-1"),
        "device": torch.device("cpu"),
        "objective": objective_of(kind_for(data).of(data, Preprocessing())),
    }
    return Supervised(Net(half=half), data, training=training, **(settings | changes))


def trained(
    learner: Supervised,
    spec: OptimizerSpec = SGD,
    *,
    iterations: int = 13,
    resume: Resume | None = None,
    state: Any = None,
) -> list[Snapshot]:
    made = learner.trajectory(
        state or learner.initial_state, spec, iterations=iterations, period=2, round=1, resume=resume
    )
    return [
        Snapshot(
            each.iteration,
            {name: tensor.clone() for name, tensor in each.state.items()},
            {name: tensor.clone() for name, tensor in each.optimizer.items()},
            each.verdict,
        )
        for each in made
    ]


def loss(learner: Supervised, snapshot: Snapshot) -> float:
    return float(learner.losses(snapshot.state).mean())


def weighted(method: str = "auxinash", **changes: Any) -> TrainingSettings:
    return TrainingSettings(weighting=WeightingSettings(**{"method": method, "every": 3, "norm": 0.3} | changes))


WAYS = {
    "auxinash": weighted(),
    "neumann": weighted(hypergradient="neumann"),
    "conjugate gradients": weighted(hypergradient="conjugate-gradient"),
    "dwa": weighted("dwa", options={"steps": 2}, norm=None),
    "parts": TrainingSettings(micro_batch=5),
    "weighted parts": weighted().model_copy(update={"micro_batch": 5}),
    "bfloat16": TrainingSettings(precision="bfloat16"),
    "float16": weighted().model_copy(update={"precision": "float16"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spec", [SGD, ADAM], ids=["sgd", "adam"])
def test_a_training_goes_on_from_any_snapshot_with_the_same_bits(way: str, spec: OptimizerSpec) -> None:
    learner = task(WAYS[way])
    whole = trained(learner, spec)
    assert loss(learner, whole[-1]) < loss(learner, whole[0])
    for at in (0, 3):
        rest = trained(learner, spec, resume=Resume(whole[at].iteration, whole[at].optimizer), state=whole[at].state)
        for one, other in zip(rest, whole[at + 1 :], strict=True):
            assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)
            assert one.optimizer.keys() == other.optimizer.keys()
            assert all(torch.equal(one.optimizer[name], other.optimizer[name]) for name in one.optimizer)


def test_powers_are_kept_and_move() -> None:
    powers = [each.optimizer["steps.weighting.powers"] for each in trained(task(weighted(options={"main_power": 0.4})))]
    assert powers[0].tolist() == [0.4, 0.6]
    free = trained(task(weighted(options={"main_power": 0.4, "most_main": 0.9})))
    assert free[-1].optimizer["steps.weighting.powers"].tolist() != [0.4, 0.6]


def test_parts_add_up_to_the_batch() -> None:
    whole, parts = trained(task()), trained(task(TrainingSettings(micro_batch=5)))
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.allclose(one.state[name], other.state[name], atol=1e-5) for name in one.state)


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 3e-2), ("float16", 4e-3)])
def test_less_precision_comes_near(precision: Any, most: float) -> None:
    whole, low = trained(task())[-1], trained(task(TrainingSettings(precision=precision)))[-1]
    gaps = [float((whole.state[name] - low.state[name]).abs().max()) for name in whole.state]
    assert 0 < max(gaps) < most
    assert all(each.dtype == torch.float32 for each in low.state.values())


def test_linear_weights_are_the_plain_sum() -> None:
    linear = weighted("linear", options={"weights": [1.0, 1.0]}, norm=None)
    for one, other in zip(trained(task(linear)), trained(task()), strict=True):
        assert all(torch.allclose(one.state[name], other.state[name], atol=1e-6) for name in one.state)


def test_the_main_head_may_be_another() -> None:
    alone = trained(task(weighted("single-task", main="depth", norm=None)))
    first, last = alone[0].state, alone[-1].state
    assert torch.equal(first["place.weight"], last["place.weight"])
    assert not torch.equal(first["depth.weight"], last["depth.weight"])
    with pytest.raises(InvalidValue, match=r"training\.weighting\.main: expected .*place"):
        trained(task(weighted(main="normals")))


@pytest.mark.parametrize("method", ["auxinash", "linear"])
def test_a_guard_sees_what_the_step_is_made_of(method: str) -> None:
    rules = Rules(fewest=24)
    options = {} if method == "auxinash" else {"weights": [1.0, 1.0]}
    guarded = task(weighted(method, options=options, norm=None), rules=rules)
    found = trained(guarded)
    assert found[-1].verdict is not None
    assert found[-1].verdict.rows
    if method == "linear":
        # It holds the rows that it holds where nothing is weighed: it saw one pass, not three.
        plain = trained(task(rules=rules))
        assert [each.verdict for each in found[1:]] == [each.verdict for each in plain[1:]]
    whole = trained(guarded)
    again = trained(guarded, resume=Resume(whole[2].iteration, whole[2].optimizer), state=whole[2].state)
    assert all(torch.equal(again[-1].state[name], whole[-1].state[name]) for name in whole[-1].state)


def test_what_does_not_go_together_is_refused() -> None:
    noise = Mechanism(noise_multiplier=1.0)
    with pytest.raises(InvalidValue, match="noise covers one loss"):
        task(weighted(), privacy=noise)
    with pytest.raises(InvalidValue, match="weighed as a whole"):
        task(weighted().model_copy(update={"micro_batch": 5}), rules=Rules(fewest=24))
    with pytest.raises(InvalidValue, match="half precision already"):
        trained(task(TrainingSettings(precision="float16"), half=True))
    with pytest.raises(InvalidValue, match="no such weighting method"):
        trained(task(weighted("auxinahs")))


def quadratic(parameters: int = 5) -> tuple[nn.Parameter, Tensor, Tensor]:
    """Where a loss with this Hessian is, the Hessian, and a vector."""
    draws = torch.Generator().manual_seed(0)
    root = torch.randn(parameters, parameters, dtype=torch.float64, generator=draws)
    hessian = root @ root.T / parameters + 0.5 * torch.eye(parameters, dtype=torch.float64)
    vector = torch.randn(parameters, dtype=torch.float64, generator=draws)
    return nn.Parameter(torch.randn(parameters, dtype=torch.float64, generator=draws)), hessian, vector


def test_inverse_hessians_have_the_right_scale() -> None:
    at, hessian, vector = quadratic()
    product = hessian_product(0.5 * at @ hessian @ at, [at])
    assert torch.allclose(product(vector), hessian @ vector)
    exact = torch.linalg.solve(hessian, vector)
    rate = 1 / float(torch.linalg.eigvalsh(hessian).max())
    assert torch.allclose(neumann(product, vector, terms=500, rate=rate), exact, rtol=1e-6)
    assert torch.allclose(conjugate_gradient(product, vector, steps=5, damping=0.0), exact, rtol=1e-8)
    damped = torch.linalg.solve(hessian + 0.3 * torch.eye(5), vector)
    assert torch.allclose(conjugate_gradient(product, vector, steps=5, damping=0.3), damped, rtol=1e-8)
    # One term of the series is the step itself.
    assert torch.equal(neumann(product, vector, terms=1, rate=0.25), 0.25 * vector)


def test_curvature_that_is_not_positive_ends_conjugate_gradients() -> None:
    _, hessian, vector = quadratic()
    negative = conjugate_gradient(lambda each: -hessian @ each, vector, steps=5, damping=0.0)
    assert torch.equal(negative, vector)


def test_a_step_that_is_infinite_is_left_out() -> None:
    net = nn.Linear(3, 1)
    settings = TrainingSettings(precision="float16")
    learner = task()
    steps = Steps([*net.parameters()], learner.objective, settings, torch.device("cpu"))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before, scale = net.weight.clone(), None

    def answers(samples: Tensor, _: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        said = net(torch.full((len(samples), 3), 1e30))
        return {"place": said.expand(-1, 2), "depth": said}, {
            "place": torch.zeros(4).long(),
            "depth": torch.zeros(4, 1),
        }

    for _ in range(2):
        steps.step(optimizer, torch.arange(4), answers, None)
        now = float(steps.kept()["steps.scale"])
        assert scale is None or now == scale / 2
        scale = now
    assert torch.equal(net.weight, before)
