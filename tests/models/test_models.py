"""Every model by its name: its size, its shapes, its initial weights, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from comity import models
from comity.errors import InvalidValue, UnknownModel

BUILT_IN = {
    "alexnet-cifar": ((3, 32, 32), 2_472_266),
    "cnn-cifar": ((3, 32, 32), 930_826),
    "cnn-kd": ((3, 32, 32), 5_607_498),
    "cnn-mnist": ((1, 28, 28), 81_842),
    "cnn-small": ((1, 8, 8), 8_714),
    "fcn": ((1, 8, 8), 4_970),
    "lenet5": ((1, 28, 28), 61_706),
    "mlp": ((1, 8, 8), 4_810),
    "policy-mlp": ((4,), 70),
    "resnet14": ((3, 32, 32), 175_258),
    "resnet18-cifar": ((3, 32, 32), 11_173_962),
    "resnet8": ((3, 32, 32), 78_042),
    "text-cnn": ((56,), 1_761_710),
}


def build(
    name: str, *, input_shape: tuple[int, ...] = (), outputs: int = 10, seed: int = 0, **options: object
) -> nn.Module:
    shape = input_shape or BUILT_IN.get(name, ((4,), 0))[0]
    return models.build(name, input_shape=shape, outputs=outputs, options=options, seed=seed)  # type: ignore[arg-type]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_exports_are_exact() -> None:
    assert sorted(models.__all__) == ["Factory", "OWN_TARGET", "OwnModels", "build", "names"]


def test_names_are_all_tested_here() -> None:
    assert models.names() == tuple(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_model_has_its_published_size_and_scores_every_class(name: str) -> None:
    shape, count = BUILT_IN[name]
    model = build(name)
    assert parameters(model) == count
    pixels = shape[1:] if name == "fcn" else ()
    assert model(torch.zeros(2, *shape)).shape == (2, 10, *pixels)
    assert build(name, outputs=7)(torch.zeros(2, *shape)).shape == (2, 7, *pixels)


@pytest.mark.parametrize("name", BUILT_IN)
def test_initial_weights_come_from_the_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    one, same, other = build(name, seed=1), build(name, seed=1), build(name, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    states = one.state_dict(), same.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_models_are_built_on_the_cpu_whatever_the_default_device() -> None:
    with torch.device("meta"):
        assert {parameter.device.type for parameter in build("mlp").parameters()} == {"cpu"}


def test_mlp_options() -> None:
    assert parameters(build("mlp", input_shape=(5,), outputs=3, hidden=7, hidden_layers=2)) == 42 + 56 + 24
    assert parameters(build("mlp", input_shape=(5,), outputs=3, hidden_layers=0)) == 18


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 31), (1, 32, 32), (3, 33, 50)])
def test_lenet5_takes_images_from_28x28(shape: tuple[int, ...]) -> None:
    assert build("lenet5", input_shape=shape)(torch.zeros(2, *shape)).shape == (2, 10)


def test_lenet5_is_as_large_for_28x28_as_for_the_original_32x32() -> None:
    assert parameters(build("lenet5")) == parameters(build("lenet5", input_shape=(1, 32, 32)))


@pytest.mark.parametrize("shape", [(3, 28, 31), (1, 32, 32)])
def test_cnn_mnist_takes_images_from_28x28(shape: tuple[int, ...]) -> None:
    assert build("cnn-mnist", input_shape=shape)(torch.zeros(2, *shape)).shape == (2, 10)


def test_text_cnn_folds_any_word_into_its_vocabulary_and_keeps_the_end_of_a_sentence_apart() -> None:
    model = build("text-cnn", input_shape=(6,), outputs=3, vocabulary=11, dimensions=4, filters=2)
    assert parameters(model) == 11 * 4 + (3 + 4 + 5) * 4 * 2 + 3 * 2 + 6 * 3 + 3
    sentence = torch.tensor([[5.0, 6.0, 7.0, 0.0, 0.0, 0.0]])
    assert torch.equal(model(sentence), model(sentence + 10.0 * (sentence > 0)))
    assert not torch.equal(model(sentence), model(sentence + 10.0))
    assert model(torch.tensor([[2.0**24 - 1, -3.0, 1e6, 1.0, 2.0, 3.0]])).isfinite().all()
    model(sentence).sum().backward()
    gradient = model.get_submodule("embedding").get_parameter("weight").grad
    assert gradient is not None
    assert not gradient[0].any()


@pytest.mark.parametrize("options", [{"vocabulary": 1}, {"vocabulary": 2**30}, {"dimensions": 0}, {"filters": 10**6}])
def test_text_cnn_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(options))):
        models.build("text-cnn", input_shape=(10,), outputs=2, options=options, seed=0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet5", (28, 28)),
        ("lenet5", (2, 28, 28)),
        ("lenet5", (1, 27, 28)),
        ("alexnet-cifar", (3, 28, 28)),
        ("alexnet-cifar", (3, 64, 64)),
        ("resnet18-cifar", (3, 32, 33)),
        ("cnn-cifar", (3, 28, 28)),
        ("cnn-kd", (3, 28, 28)),
        ("cnn-mnist", (1, 27, 28)),
        ("cnn-small", (1, 1, 8)),
        ("resnet8", (2, 32, 32)),
        ("resnet14", (3, 3, 32)),
        ("text-cnn", (4,)),
        ("text-cnn", (1, 56)),
        ("mlp", (0,)),
        ("mlp", (3, -1)),
    ],
)
def test_an_unusable_input_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue, match="cannot take this input") as caught:
        build(name, input_shape=shape)
    assert caught.value.expected
    assert "\n" not in str(caught.value)


def test_no_input_shape_is_refused() -> None:
    with pytest.raises(InvalidValue):
        models.build("mlp", input_shape=(), outputs=10, options={}, seed=0)


@pytest.mark.parametrize("outputs", [0, -1, 10**12])
def test_outputs_out_of_range_are_refused(outputs: int) -> None:
    with pytest.raises(InvalidValue, match="outputs"):
        build("mlp", outputs=outputs)


@pytest.mark.parametrize(
    "options",
    [
        {"hiden": 3},
        {"input_shape": 3},
        {"hidden": "64"},
        {"hidden": 64.0},
        {"hidden": True},
        {"hidden": 0},
        {"hidden": 10**9},
        {"hidden_layers": -1},
        {"hidden_layers": 10**9},
    ],
)
def test_an_unusable_option_is_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(options))) as caught:
        models.build("mlp", input_shape=(4,), outputs=10, options=options, seed=0)  # type: ignore[arg-type]
    assert caught.value.expected


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownModel) as caught:
        build("lenet")
    assert "'lenet5'" in caught.value.action
    assert all(name in str(caught.value.expected) for name in BUILT_IN)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as an installer leaves it, that adds models."""
    (tmp_path / "their_models.py").write_text(
        "from torch import nn\n"
        "def linear(input_shape, classes, *, bias: bool, gain: float = 1.0, **others):\n"
        "    return nn.Linear(input_shape[0], classes, bias=bias)\n"
        "def broken(input_shape, classes):\n"
        "    raise ValueError('only squares')\n"
        "def number(input_shape, classes):\n"
        "    return 3\n"
        "constant = 4\n"
    )
    (tmp_path / "leaving_models.py").write_text("import sys\nsys.exit(3)\n")
    info = tmp_path / "their_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-models\nVersion: 1.0\n")
    targets = ["their_models:linear", "their_models:broken", "their_models:number", "their_models:constant"]
    targets += ["their_models:absent", "no_such_module:model", "leaving_models:leaving"]
    lines = [f"their-{target.rpartition(':')[2]} = {target}" for target in targets]
    (info / "entry_points.txt").write_text("\n".join(["[comity.models]", *lines, "mlp = their_models:broken"]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_models", raising=False)
    return tmp_path


@pytest.mark.usefixtures("installed")
def test_a_package_adds_models_but_replaces_none() -> None:
    assert set(BUILT_IN) < set(models.names())
    model = build("their-linear", outputs=2, bias=False, gain=1, anything="else")
    assert (type(model), parameters(model)) == (nn.Linear, 8)
    assert parameters(build("mlp")) == BUILT_IN["mlp"][1]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("their-linear", {}, "bias"),
        ("their-linear", {"bias": 1}, "bool"),
        ("their-linear", {"bias": True, "gain": "x"}, "gain"),
        ("their-broken", {}, "only squares"),
        ("their-number", {}, "Module"),
    ],
)
def test_an_added_model_that_cannot_be_built_is_refused(name: str, options: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        models.build(name, input_shape=(4,), outputs=10, options=options, seed=0)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["their-absent", "their-model", "their-constant", "their-leaving"])
def test_an_added_model_that_cannot_be_imported_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModel, match=name):
        build(name)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "name", ["python:os:system", "python:their_models:linear", "timm:resnet18", "hf:folder", "os:system", "a:b:c"]
)
def test_no_name_is_looked_up_as_code(name: str) -> None:
    with pytest.raises(UnknownModel, match="names models, not where their code is") as caught:
        build(name)
    assert "their_models" not in sys.modules
    assert "[models] of node.toml" in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_a_node_gives_names_to_models_of_its_own() -> None:
    own = {
        "net": "python:their_models:linear",
        "vision": "torchvision:squeezenet1_1",
        "mlp": "python:their_models:broken",
    }

    def owned(name: str, *shape: int, **options: bool) -> nn.Module:
        return models.build(name, input_shape=shape, outputs=2, options=options, seed=0, own=own)

    assert parameters(owned("net", 4, bias=False)) == 8
    assert owned("vision", 3, 64, 64)(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    # What is built in stays what it is.
    assert parameters(owned("mlp", 4)) == 4 * 64 + 64 + 64 * 2 + 2
    with pytest.raises(UnknownModel, match="did you mean 'net'"):
        owned("nett", 4)


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("python:no_such_module:net", UnknownModel, r"no_such_module.*\[models\] in node.toml"),
        ("python:math:pi", UnknownModel, "expected a callable"),
        ("torchvision:resnet19", UnknownModel, "torchvision.models lists"),
        ("torchvision:googlenet", UnknownModel, "answer is one tensor"),
        ("timm:resnet18", (UnknownModel, InvalidValue), "timm"),
        ("hf:no-such-folder", (UnknownModel, InvalidValue), "transformers|config.json"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(target: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        models.build("net", input_shape=(4,), outputs=2, options={}, seed=0, own={"net": target})
    assert "\n" not in str(caught.value)


def test_torchvisions_models_of_masks_go_by_their_names_too() -> None:
    model = build("torchvision:lraspp_mobilenet_v3_large", input_shape=(3, 32, 48))
    assert model.eval()(torch.zeros(2, 3, 32, 48)).shape == (2, 10, 32, 48)


def test_torchvisions_classifiers_go_by_their_names() -> None:
    model = build("torchvision:mobilenet_v3_small", input_shape=(3, 32, 32))
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(InvalidValue, match="weights"):
        build("torchvision:mobilenet_v3_small", input_shape=(3, 32, 32), weights="DEFAULT")
    with pytest.raises(InvalidValue, match="channels|height"):
        build("torchvision:mobilenet_v3_small", input_shape=(1, 32, 32))
