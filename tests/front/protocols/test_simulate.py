"""Sessions in this process, described in Python."""

from __future__ import annotations

import copy
import sys
import tomllib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import comity
from comity.errors import (
    ComityError,
    InvalidValue,
    ModelSignatureMismatch,
    PolicyRefusal,
    TaskMismatch,
    UnknownKey,
    UnknownModel,
    UnsupportedProtocol,
)
from comity.experiments import demo_script
from comity.node.sessions.script import parse_script
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.simulation.in_process import simulate as of_the_command
from comity.tensors import Layout

TERMS = {"iterations": 20, "sampling_period": 5, "learning_rate": 0.01, "batch_size": 16}


class Net(nn.Module):
    """Somebody's own network, for 12 numbers and three classes."""

    def __init__(self, hidden: int = 8, features: int = 12) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.layers(inputs)
        return out


class Scans(Dataset[tuple[Tensor, int]]):
    """A data set as people write them."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        inputs, labels = samples(30, seed=2)
        return inputs[index], int(labels[index])


def samples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.randn(count, 12, generator=draw) + labels[:, None] * 2.0, labels


def pair(**more: Any) -> list[comity.Party]:
    return [
        comity.Party(model=Net, data=samples(30), test=samples(60, seed=9), **more),
        comity.Party(data=samples(60, seed=1)),
    ]


def digits(share: str) -> dict[str, Any]:
    """The demo's data."""
    partition = {"name": "imbalance", "gamma": 0.3, "share": share, "seed": 0}
    return {"source": "digits", "seed": 0, "per_class": 20, "partition": partition}


def test_the_digest_is_that_of_the_same_script() -> None:
    script = demo_script("assisted-learning", 0).replace("rounds = 10", "rounds = 2")
    expected, _ = of_the_command(parse_script(script))
    terms = AssistedLearningTerms(
        optimizer="adam",
        learning_rate=0.003,
        batch_size=32,
        iterations=100,
        sampling_period=5,
        evaluation_batch_size=32,
    )
    said = comity.simulate(
        "assisted-learning",
        [
            comity.Party(model="mlp", options={"hidden": 64}, data=digits("learner")),
            comity.Party(data=digits("provider")),
        ],
        terms,
        rounds=2,
        id="demo-0",
        threads=1,
    )
    assert said.digest == expected.digest
    assert said.bytes_sent == expected.bytes_sent
    assert comity.simulate(script.replace("baselines = true", "")).digest == expected.digest


def test_clients_as_in_the_demo_script() -> None:
    script = demo_script("gradient-rewards", 3).replace("rounds = 100", "rounds = 2")
    expected, _ = of_the_command(parse_script(script))
    table = tomllib.loads(script)
    terms = table["session"]["terms"]
    clients = [
        comity.Party(name=name, data=each["data"], secret=f"{name}-3", privacy=each["privacy"])
        for name, each in table["party"].items()
        if each["role"] == "client"
    ]
    server = comity.Party(
        role="server", data=table["party"]["server"]["data"], model="mlp", options={"hidden": 32}, secret="server-3"
    )
    said = comity.simulate("gradient-rewards", [*clients, server], terms, rounds=2, seed=3, id="demo-3")
    assert said.digest == expected.digest
    assert sorted(said.models) == [f"client-{index}" for index in range(1, 6)]
    assert comity.simulate(table | {"simulation": {}}).digest == expected.digest


def test_what_a_session_with_own_tensors_and_modules_leaves(tmp_path: Any) -> None:
    seen: list[str] = []
    result = comity.simulate(
        "assisted_learning", pair(), TERMS, rounds=3, baselines=True, observe=lambda event: seen.append(event.kind)
    )
    inputs, labels = samples(60, seed=9)
    accuracy = float((result.model(inputs).argmax(dim=1) == labels).float().mean())
    assert accuracy == pytest.approx(result.metrics["assisted"])
    assert not result.model.training
    assert {"learner_alone", "pooled"} <= set(result.metrics)
    assert [row["round"] for row in result.rounds] == [1, 2, 3]
    assert result.rounds.columns["test_accuracy"].shape == (3,)
    losses = result.rounds.columns["global_loss"]
    assert (np.diff(losses) <= 0).all()
    assert seen.count("round-finished") == 3
    assert "assisted" in repr(result)
    assert "<table>" in result._repr_html_()
    assert result.rounds._repr_html_().count("<tr>") == 4
    assert result.ledger_verified
    folder = result.save(tmp_path / "kept")
    assert Layout.of(result.model.state_dict()).pack(result.model.state_dict()).hex == result.digest
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors", "result.json"]
    again = Net()
    assert result.load_into(again) is again
    with pytest.raises(InvalidValue, match="other tensors"):
        result.load_into(Net(hidden=4))


def test_a_simulation_repeats_and_leaves_torch_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, second = (comity.simulate("assisted_learning", pair(), TERMS, rounds=1, threads=1) for _ in range(2))
    assert first.digest == second.digest
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "data",
    [
        Scans(),
        TensorDataset(*samples(30, seed=2)),
        tuple(each.numpy() for each in samples(30, seed=2)),
        (samples(30, seed=2)[0].double(), samples(30, seed=2)[1].to(torch.int32)),
    ],
    ids=["data set", "tensor data set", "arrays", "other dtypes"],
)
def test_data_however_they_are_held_are_the_same(data: Any) -> None:
    def digest(of: Any) -> str:
        parties = [comity.Party(model=Net, data=of), comity.Party(data=samples(30))]
        return comity.simulate("assisted_learning", parties, TERMS, rounds=1).digest

    assert digest(data) == digest(samples(30, seed=2))


def test_parties_by_name_and_from_a_generator() -> None:
    expected = comity.simulate("assisted_learning", pair(), TERMS, rounds=1)
    named = dict(zip(("learner", "provider"), pair(), strict=True))
    for parties in (named, (each for each in pair())):
        assert comity.simulate("assisted_learning", parties, TERMS, rounds=1).digest == expected.digest
    assert expected.rounds["test_accuracy"][0] == expected.rounds[0]["test_accuracy"]


def test_games_by_name() -> None:
    parties = [
        comity.Party(model="policy-mlp", data="gymnasium:CartPole-v1"),
        comity.Party(data="gymnasium:CartPole-v1"),
    ]
    terms = TERMS | {"batch_size": 4, "policy_gradient": {"evaluation_episodes": 12}}
    assert len(comity.simulate("assisted_learning", parties, terms, rounds=1).rounds) == 1


def test_factories_of_every_kind() -> None:
    def sized(input_shape: tuple[int, ...], outputs: int, hidden: int = 8) -> nn.Module:
        assert outputs == 3
        return Net(hidden=hidden, features=input_shape[0])

    began = Net()
    for model in (Net, lambda: Net(hidden=5), sized, lambda: copy.deepcopy(began)):
        parties = [comity.Party(model=model, data=samples(30)), comity.Party(data=samples(30, seed=1))]
        assert isinstance(comity.simulate("assisted_learning", parties, TERMS, rounds=1).model, Net)
    parties = [comity.Party(model=Net, options={"hidden": 6}, data=samples(30)), comity.Party(data=samples(30, seed=1))]
    model: Any = comity.simulate("assisted_learning", parties, TERMS, rounds=1).model
    assert model.layers[1].out_features == 6


def test_a_server_is_made_where_none_is_named_and_may_have_tests() -> None:
    clients = [comity.Party(model=Net, data=samples(30, seed=each), test=samples(30, seed=9)) for each in range(3)]
    result = comity.simulate("gradient_rewards", clients, {"clients": 3}, rounds=2)
    assert result.metrics["server_score"] is None
    assert result.per_party.columns["fraction"].shape == (6,)
    assert result.per_party[0]["party"] == "client-1"
    with pytest.raises(InvalidValue, match=r"\.models\[name\]"):
        _ = result.model
    server = comity.Party(role="server", test=samples(30, seed=9))
    tested = comity.simulate("gradient_rewards", [*clients, server], {"clients": 3}, rounds=2)
    assert tested.metrics["server_score"] > 0.3
    assert tested.digest == result.digest


def test_rounds_are_a_data_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = comity.simulate("assisted_learning", pair(), TERMS, rounds=2).rounds
    frame = rounds.to_pandas()
    assert type(frame).__module__.startswith("pandas")
    assert list(frame["round"]) == [1, 2]
    assert list(frame["global_loss"]) == list(rounds["global_loss"])
    # As where it is not installed.
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InvalidValue, match=r"pip install pandas, or use \.columns"):
        rounds.to_pandas()


WRONG: dict[str, tuple[type[ComityError], str, Any]] = {
    "protocol": (UnsupportedProtocol, "no such protocol", lambda: run(protocol="asisted_learning")),
    "term": (UnknownKey, "did you mean iterations", lambda: run(terms={"iteratons": 3})),
    "term's value": (InvalidValue, "learning_rate", lambda: run(terms={"learning_rate": -1})),
    "other terms": (InvalidValue, "AssistedLearningTerms", lambda: run(terms=GradientRewardsTerms(clients=3))),
    "terms' type": (InvalidValue, "a dict", lambda: run(terms=["iterations"])),
    "rounds": (InvalidValue, "rounds", lambda: run(rounds=0)),
    "nobody": (InvalidValue, "list of comity.Party", lambda: comity.simulate("assisted_learning")),
    "no party": (InvalidValue, "comity.Party", lambda: run(first={"data": "digits"}, raw=True)),
    "module": (InvalidValue, "pass Net itself", lambda: run(model=Net())),
    "factory's arguments": (InvalidValue, "lambda: Net", lambda: run(model=lambda hidden: Net(hidden=hidden))),
    "no factory": (InvalidValue, "a callable", lambda: run(model=3)),
    "factory that fails": (InvalidValue, "ZeroDivisionError", lambda: run(model=lambda: 1 / 0)),
    "factory of something": (InvalidValue, "torch.nn.Module", lambda: run(model=lambda: 3)),
    "model's inputs": (InvalidValue, "cannot train", lambda: run(model=lambda: Net(features=5))),
    "model's outputs": (InvalidValue, "a score for each class", lambda: run(model=lambda: nn.Linear(12, 7))),
    "model's name": (UnknownModel, "did you mean", lambda: run(model="mlpp")),
    "no model": (InvalidValue, "no party says which model", lambda: run(model=None)),
    "other model": (ModelSignatureMismatch, "layers.1.weight", lambda: run(other={"model": lambda: Net(5)})),
    "name and factory": (InvalidValue, "another model", lambda: run(other={"model": "mlp"})),
    "data": (InvalidValue, "learner's data cannot be used", lambda: run(data=3)),
    "source": (InvalidValue, "no such data source", lambda: run(data="digit")),
    "loader": (InvalidValue, ".dataset", lambda: run(data=DataLoader(Scans()))),
    "labels": (TaskMismatch, "outputs do not fit the task", lambda: run(data=(samples(30)[0], torch.rand(30)))),
    "lengths": (InvalidValue, "go together", lambda: run(data=(samples(30)[0], samples(20)[1]))),
    "not finite": (InvalidValue, "NaN", lambda: run(data=(samples(30)[0] * torch.nan, samples(30)[1]))),
    "below 0": (InvalidValue, "below 0", lambda: run(data=(samples(30)[0], samples(30)[1] - 1))),
    "images": (InvalidValue, "ToTensor", lambda: run(data=[("scan.png", 1)])),
    "shapes": (InvalidValue, "one shape", lambda: run(data=[(torch.ones(12), 1), (torch.ones(9), 0)])),
    "classes": (InvalidValue, "no class", lambda: run(classes=2)),
    "other data": (TaskMismatch, "another task", lambda: run(other={"data": (torch.rand(30, 9), samples(30)[1])})),
    "test": (InvalidValue, "not like", lambda: run(test=(torch.rand(5, 9), torch.arange(5) % 3))),
    "role": (InvalidValue, "there is no client", lambda: run(role="client")),
    "names": (InvalidValue, "one name", lambda: run(name="a", other={"name": "a"})),
    "policy": (PolicyRefusal, "samples", lambda: run(policy={"min_samples": 1000})),
    "setting": (UnknownKey, "own_modell", lambda: run(settings={"own_modell": 1})),
    "label of a pair": (TaskMismatch, "into 3 classes", lambda: run(data=[(torch.ones(12), torch.ones(3))])),
    "text of a pair": (InvalidValue, "label of sample 0", lambda: run(data=[(torch.ones(12), "benign")])),
    "table": (InvalidValue, "sample 0 cannot be read", lambda: run(data=Broken())),
    "texts": (InvalidValue, "convert it", lambda: run(data=(np.array(["a"], object), np.array([1])))),
    "nobody helps": (
        InvalidValue,
        "no party is the provider",
        lambda: comity.simulate("assisted_learning", pair()[:1]),
    ),
    "terms together": (InvalidValue, "rewards cannot be used: expected min_clients", lambda: clients({"clients": 2})),
    "channels": (InvalidValue, "normalization", lambda: run(normalization=((0.5,), (0.5,)))),
    "script": (InvalidValue, "a script alone", lambda: comity.simulate({"session": {}}, pair())),
}


class Broken:
    """What is no data set, though it looks like one."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        raise KeyError(index)


def clients(terms: Any) -> None:
    comity.simulate("gradient_rewards", [comity.Party(model=Net, data=samples(30)) for _ in range(2)], terms)


def run(
    *,
    first: Any = None,
    other: dict[str, Any] | None = None,
    raw: bool = False,
    protocol: str = "assisted_learning",
    terms: Any = None,
    rounds: int = 1,
    classes: int | None = None,
    normalization: Any = None,
    **party: Any,
) -> None:
    asks = first if raw else comity.Party(**{"model": Net, "data": samples(30), **party})
    helps = comity.Party(**{"data": samples(30, seed=1), **(other or {})})
    comity.simulate(
        protocol,
        [asks, helps],
        TERMS if terms is None else terms,
        rounds=rounds,
        classes=classes,
        normalization=normalization,
        observe=lambda event: trained.append(event.kind) if event.kind == "round-finished" else None,
    )


trained: list[str] = []


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_line_before_any_training(what: str) -> None:
    kind, said, call = WRONG[what]
    trained.clear()
    with pytest.raises(kind, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert not trained


@pytest.mark.parametrize(
    ("beside", "value"),
    [("rounds", 3), ("seed", 0), ("id", "a"), ("classes", 10), ("threads", 1), ("baselines", True), ("terms", {})],
)
def test_a_script_says_all_of_its_session(beside: str, value: Any) -> None:
    """What it would pass over is refused; zero and nothing said are not the same."""
    script = "[session]\nprotocol = 'assisted_learning'\nacceptors = ['hospital']\n[party.clinic]\nrole = 'learner'\n"
    with pytest.raises(InvalidValue, match=f"received both: {beside}"):
        comity.simulate(script, **{beside: value})
