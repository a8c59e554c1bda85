"""Models that sessions left in formats of others: ONNX and TorchScript, each checked against the original."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comity.errors import ComityError, InvalidValue, MissingFile
from comity.node.artifacts.description import METADATA
from comity.node.artifacts.keeping import write_whole
from comity.node.artifacts.loading import SessionModel
from comity.randomness import generator

_BATCH = 5
_RELATIVE = 1e-3
"""Most by which an exported model's answer may differ, as a share of the greatest: other kernels round otherwise."""

Answers = Callable[[Tensor], Sequence[Tensor]]
"""What an exported model says of a batch."""


class _InOrder(nn.Module):
    """A model whose answer is its heads' in order, which formats without dicts can have."""

    def __init__(self, model: SessionModel, heads: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.heads = heads

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The answers to stored inputs."""
        answer = self.model(inputs)
        return (answer,) if isinstance(answer, Tensor) else tuple(answer[name] for name in self.heads)


def export_onnx(model: SessionModel, path: Path) -> float:
    """Writes a model with its preprocessing as ONNX, of any batch size; returns the greatest difference of its answers.

    The input is `inputs`, as data sets store them; the outputs are called as the heads are.

    Raises:
        MissingFile: The extra is not installed.
        InvalidValue: The model cannot be exported, or says something else then.
    """
    try:
        import onnx  # noqa: F401, PLC0415 - an extra
        import onnxruntime  # noqa: PLC0415
        import onnxscript  # noqa: F401, PLC0415 - what torch exports with
    except ImportError as error:
        raise MissingFile(
            f"a model is not exported to ONNX: {error}",
            expected="onnx, onnxscript and onnxruntime",
            received="none installed",
            action="pip install 'comity[onnx]'",
        ) from error
    example, whole, names = _whole(model)
    programs: list[Any] = []

    def write() -> None:
        program = torch.onnx.export(
            whole,
            (example,),
            input_names=["inputs"],
            output_names=names,
            dynamo=True,
            dynamic_shapes={"inputs": {0: torch.export.Dim.DYNAMIC}},
            verbose=False,
        )
        programs.append(program)

    _exported("ONNX", write)
    made = programs[0].model_proto
    about = made.metadata_props.add()
    about.key, about.value = METADATA, _about(model)
    data = made.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options)

    def answers(inputs: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {"inputs": inputs.numpy()})]

    return _checked(model, whole, answers, path, data)


def export_torchscript(model: SessionModel, path: Path) -> float:
    """Writes a model with its preprocessing as TorchScript; returns the greatest difference of its answers.

    Raises:
        InvalidValue: The model cannot be exported, or says something else then.
    """
    example, whole, _ = _whole(model)
    written = io.BytesIO()

    def write() -> None:
        traced = torch.jit.trace(whole, (example,), check_trace=False)
        torch.jit.save(traced, written, _extra_files={"model.json": _about(model).encode()})

    _exported("TorchScript", write)
    written.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(written, map_location="cpu")
    return _checked(model, whole, lambda inputs: tuple(loaded(inputs)), path, written.getvalue())


def _about(model: SessionModel) -> str:
    return model.description.of(model.model).model_dump_json()


def _whole(model: SessionModel) -> tuple[Tensor, nn.Module, list[str]]:
    """Inputs to export with, what is exported, and what its answers are called."""
    example = _inputs(model, 2)
    with torch.inference_mode():
        answer = model(example)
    heads = [head.name for head in model.task.heads]
    names = ["scores"] if isinstance(answer, Tensor) else heads
    return example, _InOrder(model, heads).eval(), names


def _inputs(model: SessionModel, count: int) -> Tensor:
    """Stored inputs such as the model takes."""
    draw = generator(count)
    shape = (count, *model.model.inputs)
    words = next((each for each in model.network.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)), None)
    if words is not None:
        return torch.randint(words.num_embeddings, shape, generator=draw).float()
    if model.task.inputs.dtype == "uint8":
        return torch.randint(256, shape, generator=draw, dtype=torch.uint8)
    return torch.rand(shape, generator=draw) / (model.task.inputs.scale or 1.0)


def _exported(what: str, write: Callable[[], None]) -> None:
    # They say much of themselves, and warn of what is checked afterwards.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            write()
    except ComityError:
        raise
    except Exception as error:
        raise InvalidValue(
            f"the model cannot be written as {what}",
            expected="a forward pass that its exporter follows",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            action="use the other format, or comity.load_model",
        ) from error
    finally:
        logging.disable(level)


def _checked(model: SessionModel, whole: nn.Module, answers: Answers, path: Path, data: bytes) -> float:
    """Writes what was exported, if it says what the model says: of batches of other sizes than it was exported with."""
    worst = 0.0
    for count in (1, _BATCH):
        inputs = _inputs(model, count)
        with torch.inference_mode():
            expected: tuple[Tensor, ...] = whole(inputs)
            made: Any = answers(inputs)
        for own, other in zip(expected, made, strict=True):
            if own.shape != other.shape:
                raise _differs(f"shape {list(own.shape)}", f"shape {list(other.shape)}")
            difference = float((own - other).abs().max())
            if not difference <= _RELATIVE * max(1.0, float(own.abs().max())):
                raise _differs(f"the model's answers, by {_RELATIVE:g} at most", f"others, by {difference:g}")
            worst = max(worst, difference)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [data])
    return worst


def _differs(expected: str, received: str) -> InvalidValue:
    return InvalidValue(
        "the exported model says something else",
        expected=expected,
        received=received,
        action="nothing was written; use the other format, or comity.load_model",
    )
