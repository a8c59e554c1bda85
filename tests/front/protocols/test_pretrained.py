"""Sessions that begin with weights from a file, and that train a part of a model, or adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import comity
from comity.contract import LoraSpec, ModelForm, ModelSpec
from comity.errors import ComityError, InvalidValue, MissingFile, UnknownWeights
from comity.front.result import Result
from comity.models.crossing import Crossing
from comity.models.form import give_form
from comity.models.weights import digest_of_weights
from comity.tasks import build_model
from comity.tasks.classification import classification
from comity.tensors import Layout

SIDE, CLASSES = 8, 4
PROTOCOLS = ("assisted_learning", "gradient_rewards")
LORA = {"initial": "learned", "fresh": ["head.*"], "lora": {"rank": 2}, "trainable": ["head.*"]}


class Net(nn.Module):
    """A small network with normalization and a head."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 16, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.head(self.trunk(inputs))
        return answer


def samples(seed: int, count: int = 60, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    inputs = 0.3 * torch.rand(count, 1, SIDE, SIDE, generator=draws)
    for place, label in enumerate(labels.tolist()):
        inputs[place, 0, label % SIDE] += 0.7
    return inputs, labels


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the network after it learned to tell six other kinds of pictures apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(6)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        inputs, labels = samples(99, 96, 6)
        for _ in range(30):
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "learned.safetensors"
    save_file(model.state_dict(), path)
    return path


def run(protocol: str, form: Mapping[str, Any], weights: Mapping[str, Path] | None = None, **beside: Any) -> Result:
    roles = ["learner", "provider"] if protocol == "assisted_learning" else ["client"] * 3
    others = beside.pop("others", weights)
    parties = [
        comity.Party(
            model=Net,
            form=form,
            weights=(weights if place == 0 else others) or {},
            data=samples(place),
            test=samples(9),
            role=role,
            name=f"p{place}",
        )
        for place, role in enumerate(roles)
    ]
    terms: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.01}
    if protocol == "assisted_learning":
        terms |= {"optimizer": "adam", "iterations": 12, "sampling_period": 4, "evaluation_batch_size": 32}
    else:
        parties.append(comity.Party(model=Net, role="server", name="server", weights=others or {}))
        terms |= {"clients": 3, "min_clients": 3, "epochs": 2}
    return comity.simulate(protocol, parties, terms, rounds=2, **beside)


def crossed(result: Result) -> int:
    return sum(result.bytes_sent.get(kind, 0) + result.bytes_received.get(kind, 0) for kind in ("checkpoint", "update"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_network_is_tuned_by_adapters_and_only_these_cross(protocol: str, learned: Path, tmp_path: Path) -> None:
    tuned, whole = run(protocol, LORA, {"learned": learned}), run(protocol, {})
    assert crossed(tuned) < 0.2 * crossed(whole)
    began = load_file(learned)
    model = next(iter(tuned.models.values()))
    state = model.state_dict()
    (adapters, *_) = (Layout.unpack(each) for each in tuned._reached().others.values())
    adapted = {
        name.partition(".lora_B")[0] + ".weight" for name, each in adapters.items() if "lora_B" in name and each.any()
    }
    assert len(adapted) == 3
    # What is not trained is as it began, statistics of normalization too; adapters are worked in.
    assert state.keys() == began.keys()
    for name, tensor in began.items():
        assert torch.equal(state[name], tensor) == (name not in adapted) or name.startswith("head.")
    assert tuned.ledger_verified


def test_the_same_tuning_ends_the_same(learned: Path) -> None:
    first = run("assisted_learning", LORA, {"learned": learned})
    assert run("assisted_learning", LORA, {"learned": learned}).digest == first.digest


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_part_of_a_model_is_trained(protocol: str) -> None:
    result = run(protocol, {"trainable": ["head.*"]})
    crossed_of_each = [{*Layout.unpack(each)} for each in result._reached().others.values()]
    assert crossed_of_each
    assert all(names == {"head.weight", "head.bias"} for names in crossed_of_each)


def test_a_session_begins_where_another_ended(learned: Path, tmp_path: Path) -> None:
    before = run("assisted_learning", {"initial": "learned", "fresh": ["head.*"]}, {"learned": learned})
    left = before.save(tmp_path / "left") / "model.safetensors"
    after = run("assisted_learning", {"initial": "left"}, {"left": left})
    # The first is as good as the second: nothing that it trained was better on both sides than what it began with.
    assert after.digest == before.digest
    assert run("assisted_learning", {}).digest != before.digest
    with pytest.raises(UnknownWeights, match=r"get the file from the other party.*\[weights\]"):
        run("assisted_learning", {"initial": "left"}, {"left": left}, others={"learned": learned})


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        ({"trainable": ["tail.*"]}, InvalidValue, r"trainable fits nothing.*head\.weight.*tail"),
        ({"lora": {"layers": ["trunk.1"]}}, InvalidValue, r"lora\.layers fits nothing"),
        ({"until": "tail"}, InvalidValue, "no such layer"),
        ({"initial": "lerned"}, InvalidValue, "did you mean learned"),
        ({"initial": "session:before"}, InvalidValue, "no model of session before"),
        ({"initial": "learned"}, InvalidValue, r"another model's: head\.weight.*fresh"),
        ({"initial": "gone"}, MissingFile, "gone"),
        ({"initial": "pickled"}, InvalidValue, "torch.save may hold code"),
        ({"initial": "wrapped"}, InvalidValue, r"take module\. off"),
        ({"lora": {"rank": 0}}, InvalidValue, "rank"),
    ],
)
def test_a_form_that_does_not_fit_is_refused_by_name(
    form: dict[str, Any], error: type[ComityError], message: str, learned: Path, tmp_path: Path
) -> None:
    files = {"learned": learned, "gone": tmp_path / "gone", "pickled": tmp_path / "pickled", "wrapped": tmp_path / "w"}
    files["pickled"].write_bytes(b"PK\x03\x04 and so on, as torch.save writes it")
    save_file({f"module.{name}": each for name, each in load_file(learned).items()}, files["wrapped"])
    with pytest.raises(error, match=message) as caught:
        run("assisted_learning", form, files)
    assert "\n" not in str(caught.value)


def test_adapters_of_a_resnet18_are_a_twentieth_of_it() -> None:
    task = classification((3, 32, 32), 10)
    sizes = []
    for form in ({}, {"lora": LoraSpec(rank=8), "trainable": ("fc.*",)}):
        model = build_model(ModelSpec(name="torchvision:resnet18", **form), task, seed=0)  # type: ignore[arg-type]
        sizes.append(Layout.of(Crossing.of(model).state(model)).size)
    assert sizes[1] < 0.05 * sizes[0]


def test_the_digest_of_weights_is_of_the_tensors_whatever_the_file(learned: Path, tmp_path: Path) -> None:
    weights = load_file(learned)
    backwards = dict(reversed(weights.items()))
    save_file(backwards, tmp_path / "other", metadata={"format": "pt"})
    assert digest_of_weights(load_file(tmp_path / "other")) == digest_of_weights(weights)


def test_an_answer_is_the_part_that_is_meant() -> None:
    class Both(nn.Linear):
        def forward(self, inputs: Tensor) -> Any:
            return {"logits": super().forward(inputs), "aux": None}

    model = give_form(Both(3, 2), ModelForm(answer="logits"))
    assert model(torch.zeros(4, 3)).shape == (4, 2)
    with pytest.raises(InvalidValue, match="one of logits.*received scores"):
        give_form(Both(3, 2), ModelForm(answer="scores"))(torch.zeros(4, 3))
