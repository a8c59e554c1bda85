"""Models that are files of another program's: TorchScript and ONNX. They answer, and are not trained."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from comity.errors import InvalidValue, UnknownModel

_ACTION = "correct [models] in node.toml"


class Frozen(nn.Module):
    """A model of a file, without parameters of ours: on the CPU, with as many outputs as it has.

    Args:
        what: What to call it in errors.
        answer: Its answer to a batch.
    """

    def __init__(self, what: str, answer: Any) -> None:
        super().__init__()
        self.what = what
        self._answer = answer

    def forward(self, inputs: Tensor) -> Tensor:
        """`[batch, ...]` to `[batch, outputs]`.

        Raises:
            InvalidValue: It cannot take the batch, or its answer is no tensor.
        """
        try:
            given: Any = self._answer(inputs.detach().to("cpu", torch.float32).contiguous())
        except Exception as error:
            raise InvalidValue(
                f"model {self.what} cannot take a batch of shape {list(inputs.shape)}",
                expected="one that it was made for, with any number of inputs",
                received=" ".join(str(error).split())[:300],
                action="export it with a batch of any size, of inputs as models take them",
            ) from error
        if not isinstance(given, Tensor):
            raise InvalidValue(
                f"model {self.what} says something else",
                expected="a tensor, or several of which the first is the scores",
                received=type(given).__name__,
                action="export it with one tensor for its answer",
            )
        return given.to(inputs.device)


def torchscript_model(path: Path, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A model of a TorchScript file, which is code of whoever made it: only the node's own configuration names one.

    Raises:
        UnknownModel: It cannot be read.
        InvalidValue: It takes other inputs, or says something else.
    """
    try:
        with warnings.catch_warnings():
            # torch calls the format old; files in it are what is meant here.
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise _unreadable("TorchScript", path, error) from error

    def answer(inputs: Tensor) -> Any:
        with torch.inference_mode():
            found = module(inputs)
        return found[0] if isinstance(found, tuple) and found else found

    return _checked(Frozen(f"torchscript:{path}", answer), input_shape, outputs)


def onnx_model(path: Path, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A model of an ONNX file (extra `onnx`).

    Raises:
        UnknownModel: It cannot be read, or the library is not installed.
        InvalidValue: It takes other inputs, or says something else.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnknownModel(
            f"Model 'onnx:{path}' needs the library onnxruntime, which is not installed",
            action="pip install 'comity[onnx]'",
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _unreadable("ONNX", path, error) from error
    names = [each.name for each in session.get_inputs()]
    if len(names) != 1:
        raise InvalidValue(
            f"model onnx:{path} cannot be used", expected="one input", received=len(names), action=_ACTION
        )
    (name,) = names

    def answer(inputs: Tensor) -> Tensor:
        return torch.from_numpy(np.array(session.run(None, {name: inputs.numpy()})[0]))

    return _checked(Frozen(f"onnx:{path}", answer), input_shape, outputs)


def _checked(model: Frozen, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    with torch.device("cpu"):
        said = model(torch.zeros(2, *input_shape))
    if said.shape != (2, outputs) or not said.is_floating_point():
        raise InvalidValue(
            f"model {model.what} says something else",
            expected=f"{outputs} scores for each input",
            received=f"shape {list(said.shape[1:])} of {said.dtype}",
            action=_ACTION,
        )
    return model


def _unreadable(kind: str, path: Path, error: Exception) -> UnknownModel:
    return UnknownModel(
        f"The {kind} model at {path} cannot be read: {' '.join(str(error).split())[:300]}", action=_ACTION
    )
