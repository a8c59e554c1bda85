"""Models that are files: what they say is what was exported, and what cannot be used says so."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from comity.errors import ComityError, InvalidValue, UnknownModel
from comity.models import OWN_TARGET, build

SHAPE = (1, 8, 8)


def trained() -> nn.Module:
    return build("cnn-small", input_shape=SHAPE, outputs=10, options={}, seed=3).eval()


def write_torchscript(path: Path, model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, (torch.zeros(2, *SHAPE),)), str(path))  # type: ignore[no-untyped-call]


def write_onnx(path: Path, linear: nn.Linear) -> None:
    """A layer as another framework writes it, for a batch of any size."""
    onnx = pytest.importorskip("onnx")
    parser = pytest.importorskip("onnx.parser")
    pytest.importorskip("onnxruntime")
    weight, bias = (
        ", ".join(f"{value:.9g}" for value in each.flatten().tolist()) for each in (linear.weight.T, linear.bias)
    )
    made = parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 13]>
        linear (float[batch, 1, 8, 8] inputs) => (float[batch, 10] scores)
        <float[64, 10] weight = {{{weight}}}, float[10] bias = {{{bias}}}>
        {{ flat = Flatten(inputs)
           scores = Gemm(flat, weight, bias) }}"""
    )
    onnx.save(made, str(path))


def of(target: str, outputs: int = 10, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    return build("legacy", input_shape=shape, outputs=outputs, options={}, seed=0, own={"legacy": target}).eval()


def test_a_torchscript_file_answers_as_the_model_did(tmp_path: Path) -> None:
    model = trained()
    write_torchscript(tmp_path / "m.pt", model)
    inputs = torch.rand(7, *SHAPE)
    with torch.inference_mode():
        assert torch.allclose(of(f"torchscript:{tmp_path / 'm.pt'}")(inputs), model(inputs), atol=1e-6)


def test_an_onnx_file_answers_as_the_model_did(tmp_path: Path) -> None:
    linear = nn.Linear(64, 10)
    write_onnx(tmp_path / "m.onnx", linear)
    inputs = torch.rand(7, *SHAPE)
    with torch.inference_mode():
        assert torch.allclose(of(f"onnx:{tmp_path / 'm.onnx'}")(inputs), linear(inputs.flatten(1)), atol=1e-5)


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_a_file_that_is_none_says_so(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "m").write_bytes(b"nothing")
    for name in ("m", "not-there"):
        with pytest.raises(UnknownModel, match="cannot be read"):
            of(f"{kind}:{tmp_path / name}")


@pytest.mark.parametrize(("outputs", "shape"), [(9, SHAPE), (10, (3, 8, 8))], ids=["outputs", "inputs"])
def test_a_file_of_another_size_is_refused(outputs: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    write_torchscript(tmp_path / "m.pt", trained())
    with pytest.raises(InvalidValue, match="torchscript"):
        of(f"torchscript:{tmp_path / 'm.pt'}", outputs, shape)


def test_a_batch_that_it_was_not_made_for_is_refused(tmp_path: Path) -> None:
    write_torchscript(tmp_path / "m.pt", trained())
    model = of(f"torchscript:{tmp_path / 'm.pt'}")
    with pytest.raises(ComityError, match="cannot take a batch"):
        model(torch.zeros(2, 3))


def test_configurations_may_name_them() -> None:
    for target in ("onnx:folder/m.onnx", "torchscript:m.pt"):
        assert re.fullmatch(OWN_TARGET, target)


class Named(nn.Module):
    """Answers by name."""

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": inputs.flatten(1)}


class Nothing(nn.Module):
    """Answers with no tensor among several."""

    def forward(self, inputs: torch.Tensor) -> tuple[int, torch.Tensor]:
        return 1, inputs


@pytest.mark.parametrize("model", [Named(), Nothing()], ids=["names", "numbers"])
def test_an_answer_that_is_no_tensor_is_refused_in_one_line(model: nn.Module, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(tmp_path / "m.pt"))
    with pytest.raises(InvalidValue, match="says something else") as caught:
        of(f"torchscript:{tmp_path / 'm.pt'}")
    assert "\n" not in str(caught.value)


def test_an_onnx_file_without_inputs_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    parser = pytest.importorskip("onnx.parser")
    pytest.importorskip("onnxruntime")
    made = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 13]>
        constant () => (float[2] scores) { scores = Constant <value = float[2] {1.0, 2.0}> () }"""
    )
    onnx.save(made, str(tmp_path / "m.onnx"))
    with pytest.raises(InvalidValue, match="cannot be used"):
        of(f"onnx:{tmp_path / 'm.onnx'}")
