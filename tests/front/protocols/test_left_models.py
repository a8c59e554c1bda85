"""What sessions leave, used without them: loaded, asked, tested and written in formats of others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import tqdm
from safetensors.torch import load_file
from torch import Tensor, nn

import comity
from comity.errors import InvalidValue, MissingFile, UnknownModel
from comity.experiments import demo_script
from comity.node.artifacts.description import read_description
from comity.node.artifacts.exporting import export_torchscript
from comity.node.artifacts.keeping import keep_models, kept
from comity.node.artifacts.samples import samples
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import parties, simulate_with
from tests.cli.conftest import Done, typed
from tests.e2e.pages import ROOT, blocks

__all__ = ["typed"]

TERMS = {"iterations": 20, "sampling_period": 5, "learning_rate": 0.01, "batch_size": 16}
Typed = Callable[..., Done]


class Net(nn.Module):
    """Somebody's own network."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of three classes."""
        out: Tensor = self.layers(inputs)
        return out


def some(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.randn(count, 12, generator=draw) + labels[:, None] * 2.0, labels


def wines(path: Path, count: int, seed: int, *, labelled: bool = True) -> Path:
    """A table with a category, a number that is missing at times, and a class."""
    draw = np.random.default_rng(seed)
    lines = ["id,acid,sugar,colour" + (",kind" if labelled else "")]
    for row in range(count):
        sort = row % 2
        acid, sugar = draw.normal(3 + 2 * sort), draw.normal(5 - 2 * sort)
        colour = ("red", "white")[int(draw.random() < 0.5 + 0.3 * sort)]
        lines.append(
            f"w{row},{acid:.3f},{'' if row == 3 else f'{sugar:.3f}'},{colour}"
            + (f",{('dry', 'sweet')[sort]}" if labelled else "")
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def of_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session on tables, as nodes read them."""
    folder = tmp_path_factory.mktemp("tables")
    wines(folder / "clinic.csv", 40, 0)
    wines(folder / "hospital.csv", 60, 1)
    wines(folder / "test.csv", 50, 2)
    table = {
        "target": "kind",
        "columns": ["acid", "sugar", "colour"],
        "categories": {"colour": ["red", "white"]},
        "fill": {"sugar": 4.0},
        "id": "id",
    }

    def data(name: str) -> dict[str, Any]:
        splits = {"test": {"source": f"csv:{folder / 'test.csv'}"}}
        return {"source": f"csv:{folder / name}", "table": table, "splits": splits}

    result = comity.simulate(
        "assisted_learning",
        [
            comity.Party(model="mlp", options={"hidden": 8}, data=data("clinic.csv")),
            comity.Party(data=data("hospital.csv")),
        ],
        TERMS,
        rounds=2,
        normalization=([3.5, 4.0, 0.5, 0.5], [2.0, 2.0, 1.0, 1.0]),
        id="wines",
    )
    result.save(folder / "left")
    return folder


def test_a_folder_says_what_it_is_and_its_model_is_ready(of_tables: Path) -> None:
    left = of_tables / "left"
    described = json.loads((left / "model.json").read_text())
    assert (described["session"], described["party"], described["models"][0]["file"]) == (
        "wines",
        "learner",
        "model.safetensors",
    )
    assert described["task"]["heads"][0]["labels"] == ["dry", "sweet"]
    assert described["task"]["inputs"]["preprocessing"]["std"] == [2.0, 2.0, 1.0, 1.0]
    model = comity.load_model(left)
    assert isinstance(model, nn.Module)
    assert not model.training
    assert model.classes == ("dry", "sweet")
    stored = torch.tensor([[5.2, 2.9, 0.0, 1.0], [2.7, 5.1, 1.0, 0.0]])
    prepared = (stored - torch.tensor([3.5, 4.0, 0.5, 0.5])) / torch.tensor([2.0, 2.0, 1.0, 1.0])
    assert torch.equal(model(stored), model.network(prepared))
    assert [model.classes[each] for each in model.predict(stored)["class"]] == ["sweet", "dry"]
    result = json.loads((left / "result.json").read_text())
    assert described["models"][0]["digest"] == result["digest"]
    # One file alone says the same, and is plain safetensors.
    alone = comity.load_model(left / "model.safetensors")
    assert torch.equal(alone(stored), model(stored))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    plain.load_state_dict(load_file(left / "model.safetensors"))
    assert torch.equal(plain(prepared), model(stored))


def test_samples_without_labels_are_told_by_the_command(of_tables: Path, tmp_path: Path, typed: Typed) -> None:
    new = wines(tmp_path / "new.csv", 5, 7, labelled=False)
    done = typed("predict", new, "--model", of_tables / "left")
    assert done.code == 0, done.error
    found = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["id"] for row in found] == ["w0", "w1", "w2", "w3", "w4"]
    assert {row["class"] for row in found} <= {"dry", "sweet"}
    for row in found:
        chances = {name: float(row[f"probability {name}"]) for name in ("dry", "sweet")}
        assert sum(chances.values()) == pytest.approx(1)
        assert max(chances, key=lambda name: chances[name]) == row["class"]
    as_json = json.loads(typed("predict", new, "--model", of_tables / "left", "--json").out)
    assert [row["class"] for row in as_json["predictions"]] == [row["class"] for row in found]
    for suffix in ("csv", "json", "npz"):
        out = tmp_path / f"said.{suffix}"
        assert typed("predict", new, "--model", of_tables / "left", "--out", out).code == 0
        assert out.stat().st_size > 0
    with np.load(tmp_path / "said.npz") as arrays:
        assert arrays["probability"].shape == (5, 2)
    assert (tmp_path / "said.csv").read_text() == done.out
    assert typed("predict", new, "--model", of_tables / "left", "--out", tmp_path / "said.xlsx").code == 2


def test_a_test_says_what_the_session_said(of_tables: Path, tmp_path: Path, typed: Typed) -> None:
    said = json.loads(typed("evaluate", of_tables / "test.csv", "--model", of_tables / "left", "--json").out)
    tested = json.loads((of_tables / "left" / "result.json").read_text())["metrics"]["tested"]["assisted"]
    recall = said["metrics"].pop("recall")
    assert recall == pytest.approx(tested["recall"])
    assert said["metrics"] == pytest.approx({name: each for name, each in tested.items() if name != "recall"})
    shown = typed("evaluate", of_tables / "test.csv", "--model", of_tables / "left")
    assert "recall of dry" in shown.out
    # A file of one class alone keeps the model's numbers.
    sweet = [line for line in (of_tables / "test.csv").read_text().splitlines() if not line.endswith("dry")]
    (tmp_path / "sweet.csv").write_text("\n".join(sweet) + "\n")
    alone = json.loads(typed("evaluate", tmp_path / "sweet.csv", "--model", of_tables / "left", "--json").out)
    assert alone["metrics"]["accuracy"] == pytest.approx(tested["recall"]["sweet"])


def test_what_does_not_fit_is_said(of_tables: Path, tmp_path: Path, typed: Typed) -> None:
    left = of_tables / "left"
    for arguments, said in (
        (("predict", "digits", "--model", left), "other inputs than the model takes"),
        (("evaluate", "digits", "--model", left), "lacks the class"),
        (("predict", of_tables / "test.csv"), "no model is named"),
        (("predict", of_tables / "test.csv", "--model", tmp_path), "does not say which model is in it"),
        (("predict", of_tables / "nowhere.csv", "--model", left), "nowhere.csv"),
        (("predict", of_tables / "test.csv", "--model", left, "--name", "rejector"), "no model of this name"),
        (("export", "--model", left), "no format is named"),
    ):
        done = typed(*arguments)
        assert done.code == 2, (arguments, done)
        assert said in done.error
    with pytest.raises(MissingFile, match=r"model\.json"):
        comity.load_model(tmp_path)
    with pytest.raises(InvalidValue, match="other tensors"):
        comity.load_model(left, Net())


@pytest.mark.parametrize("data", ["tables", "digits"])
def test_exports_answer_as_the_original(
    of_tables: Path, tmp_path: Path, typed: Typed, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if data == "tables":
        left = of_tables / "left"
    else:
        partition = {"name": "imbalance", "gamma": 0.5, "seed": 0}
        sides = [
            comity.Party(model="cnn-small", data={"source": "digits", "partition": partition | {"share": share}})
            for share in ("learner", "provider")
        ]
        left = comity.simulate("assisted_learning", sides, TERMS, rounds=1).save(tmp_path / "left")
    model = comity.load_model(left)
    # Else it leaves a thread for all that come after.
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)
    onnx, script = tmp_path / "model.onnx", tmp_path / "model.pt"
    done = typed("export", "--model", left, "--onnx", onnx, "--torchscript", script, "--json")
    assert done.code == 0, done.error
    assert json.loads(done.out)["exports"]["onnx"]["greatest_difference"] < 1e-4
    stored = torch.randint(0, 16, (7, *model.model.inputs)).to(getattr(torch, model.task.inputs.dtype))
    expected = model(stored)
    (answer,) = onnxruntime.InferenceSession(str(onnx)).run(None, {"inputs": stored.numpy()})
    assert torch.allclose(torch.from_numpy(answer), expected, atol=1e-4)
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        loaded = torch.jit.load(script)
    assert torch.allclose(loaded(stored)[0], expected, atol=1e-5)


def test_an_export_that_says_something_else_is_not_written(of_tables: Path, tmp_path: Path) -> None:
    class Counts(nn.Module):
        calls = 0.0

        def forward(self, inputs: Tensor) -> Tensor:
            Counts.calls += 1.0
            return inputs[:, :2] + Counts.calls

    description, _ = read_description(of_tables / "left")
    moody = comity.SessionModel(Counts(), description, description.models[0])
    with pytest.raises(InvalidValue, match="says something else"):
        export_torchscript(moody, tmp_path / "moody.pt")
    assert not list(tmp_path.iterdir())


def test_own_code_is_put_in_by_who_has_it(tmp_path: Path) -> None:
    sides = [comity.Party(model=Net, data=some(30), test=some(60, 9)), comity.Party(data=some(60, 1))]
    result = comity.simulate("assisted_learning", sides, TERMS, rounds=1)
    left = result.save(tmp_path / "left")
    inputs, _ = some(5, 3)
    for model in (comity.load_model(left, Net()), comity.load_model(left, Net)):
        assert torch.equal(model(inputs), result.model(inputs))
    name = json.loads((left / "model.json").read_text())["models"][0]["spec"]["name"]
    own = comity.load_model(left, models={name: lambda shape, outputs: Net()})
    assert torch.equal(own(inputs), result.model(inputs))
    with pytest.raises(UnknownModel, match="somebody's own code"):
        comity.load_model(left)
    with pytest.raises(InvalidValue, match="other tensors"):
        comity.load_model(left, Net(hidden=4))


def test_each_client_s_model_is_there(tmp_path: Path) -> None:
    result = comity.simulate(demo_script("gradient-rewards", 0).replace("rounds = 100", "rounds = 2"))
    left = result.save(tmp_path / "left")
    stored = torch.rand(3, 64) * 16
    for name, own in result.models.items():
        assert torch.equal(
            comity.load_model(left, name=name)(stored.view(3, 1, 8, 8)), own(stored.view(3, 1, 8, 8) / 16)
        )
    with pytest.raises(InvalidValue, match="several models"):
        comity.load_model(left)


def test_a_policy_is_loaded_and_says_what_it_would_do(tmp_path: Path, typed: Typed) -> None:
    games = {"source": "gymnasium:CartPole-v1", "games": 5}
    sides = [comity.Party(model="policy-mlp", data=games), comity.Party(data=games)]
    terms = {"iterations": 3, "sampling_period": 1, "batch_size": 2, "policy_gradient": {"evaluation_episodes": 2}}
    left = comity.simulate("assisted_learning", sides, terms, rounds=1).save(tmp_path / "left")
    policy = comity.load_model(left)
    said = policy.predict(torch.tensor([[0.0, 0.1, 0.0, -0.1]]))
    assert said["action"].item() in {0, 1}
    assert float(said["probability"].sum()) == pytest.approx(1)
    assert typed("predict", "digits", "--model", left).code == 2


def test_a_policy_is_tested_in_games(tmp_path: Path, typed: Typed) -> None:
    games = {"source": "gymnasium:CartPole-v1", "games": 5}
    sides = [comity.Party(model="policy-mlp", data=games), comity.Party(data=games)]
    terms = {"iterations": 3, "sampling_period": 1, "batch_size": 2, "policy_gradient": {"evaluation_episodes": 2}}
    left = comity.simulate("assisted_learning", sides, terms, rounds=1).save(tmp_path / "left")
    said = json.loads(typed("evaluate", "gymnasium:CartPole-v1", "--model", left, "--json").out)
    assert said["episodes"] == 100
    # CartPole ends after 500 steps, and nobody falls in fewer than 8.
    assert 8 <= said["metrics"]["return"] <= 500
    assert 0 < said["metrics"]["spread"] < 250
    # Always the same games.
    assert json.loads(typed("evaluate", "gymnasium:CartPole-v1", "--model", left, "--json").out) == said
    shown = typed("evaluate", "gymnasium:CartPole-v1", "--model", left)
    assert "100 episodes of gymnasium:CartPole-v1" in shown.out + shown.error
    assert f"{said['metrics']['return']:.1f}" in shown.out
    for wrong, what in (
        ("digits", "tested in games"),
        ("gymnasium:Acrobot-v1", "another game"),
        ("gymnasium:Nowhere-v0", "Nowhere"),
    ):
        refused = typed("evaluate", wrong, "--model", left)
        assert refused.code == 2, refused
        assert what in refused.error


def test_a_model_of_the_party_s_own_is_beside_the_one_that_crossed(tmp_path: Path) -> None:
    own = '[party.learner.protocols.assisted-learning]\nown_model = { name = "mlp", options = { hidden = 7 } }\n'
    script = parse_script(demo_script("assisted-learning", 0).replace("rounds = 10", "rounds = 1") + own)
    asking, helping = parties(script)
    result, outcome = simulate_with(script, asking, helping)
    contract, _ = draft_contract(script, asking[0], result.session)
    left = kept(asking[0], contract, outcome)
    keep_models(tmp_path, left)
    inputs = torch.randint(0, 16, (4, 1, 8, 8), dtype=torch.uint8)
    assert comity.load_model(tmp_path, name="own").network[1].weight.shape == (7, 64)
    assert comity.load_model(tmp_path, name="model")(inputs).shape == (4, 10)
    with pytest.raises(InvalidValue, match="several models"):
        comity.load_model(tmp_path)


def test_features_of_another_model_are_not_prepared_twice(tmp_path: Path) -> None:
    result = comity.simulate(demo_script("learning-to-help", 0))
    left = result.save(tmp_path / "left")
    assert sorted(path.name for path in left.iterdir()) == [
        "local.safetensors",
        "model.json",
        "rejector.safetensors",
        "result.json",
    ]
    assert sorted(result.models) == ["local", "rejector"]
    rejector = comity.load_model(left, name="rejector")
    features = torch.rand(2, *rejector.model.inputs)
    assert torch.equal(rejector(features), rejector.network(features))


def test_others_samples_are_no_samples_of_the_model(of_tables: Path, tmp_path: Path) -> None:
    description, _ = read_description(of_tables / "left")
    swapped = (of_tables / "test.csv").read_text().replace("id,acid,sugar", "id,sugar,acid").replace(",,", ",4.0,")
    (tmp_path / "swapped.csv").write_text(swapped)
    found, split = samples(str(tmp_path / "swapped.csv"), description, labelled=False)
    # By name: the order of the file's columns is its own.
    assert (len(found), split) == (50, "train")
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 5), np.float32))
    with pytest.raises(InvalidValue, match="other inputs"):
        samples(f"npz:{tmp_path / 'wide.npz'}", description, labelled=False)


def test_the_page_runs_block_by_block(
    of_tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "use-a-model.md"
    monkeypatch.chdir(of_tables)
    scope: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block.body, str(page), "exec"), scope)
    assert "'sweet'" in capsys.readouterr().out
    assert torch.allclose(
        scope["network"]((scope["inputs"] - scope["mean"]) / scope["std"]), scope["model"](scope["inputs"])
    )
