"""Weights that models begin with, in safetensors files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from comity.errors import InvalidValue, MalformedMessage, MissingFile, TensorMismatch
from comity.models.form import fits
from comity.tensors import Blob, Layout
from comity.tensors.layout import require_finite

_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which stay on disk until they are used.

    Raises:
        MissingFile: It is not there.
        InvalidValue: It is of another kind, or its names have a prefix that a tool put there.
    """
    named_tensors(path)
    with _explained(path):
        weights: dict[str, Tensor] = safetensors.torch.load_file(str(path))
    return weights


def named_tensors(path: Path) -> tuple[str, ...]:
    """The names of the tensors of a safetensors file, of which the header alone is read.

    Raises:
        MissingFile: It is not there.
        InvalidValue: It is of another kind, or its names have a prefix that a tool put there.
    """
    if not path.is_file():
        raise MissingFile(
            "the weights to begin with cannot be read",
            expected="a safetensors file",
            received=path,
            action="correct the path in [weights]",
        )
    with _explained(path), safetensors.safe_open(str(path), "pt") as file:
        names = tuple(file.keys())
    require_bare_names(names, str(path))
    return names


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise InvalidValue(
            f"{path} is no safetensors file",
            expected="names and tensors alone: a file of torch.save may hold code, and is not read",
            received=" ".join(str(error).split())[:200],
            action="save the state dict with safetensors.torch.save_file, and name that file",
        ) from error


def require_bare_names(names: Iterable[str], where: str) -> None:
    """Checks that tensors have the names that the module itself gives them.

    Raises:
        InvalidValue: They have a tool's prefix before them.
    """
    for name in names:
        prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
        if prefix is not None:
            raise InvalidValue(
                f"the names in {where} have a prefix",
                expected=f"{name.removeprefix(prefix)}, as the module itself calls it",
                received=name,
                action=f"take {prefix} off the names, or save the state dict of what the wrapper holds",
            )


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Digest (hexadecimal) of weights, whatever file they stand in: that of their blob in safetensors layout."""
    return Layout.of(weights).digest(weights)


def weights_in(blob: Blob) -> dict[str, Tensor]:
    """The tensors of weights that another party sent.

    Raises:
        MalformedMessage: They are no weights, or not laid out as this library does.
        NonFiniteValue: A value is NaN or infinite.
        InvalidValue: Their names have a prefix that a tool put there.
    """
    try:
        weights = Layout.unpack(blob)
        digest = digest_of_weights(weights)
    except (SafetensorError, TensorMismatch) as error:
        raise _no_weights(" ".join(str(error).split())[:200]) from error
    if digest != blob.hex:
        raise _no_weights("another order, or more than tensors")
    require_finite(weights)
    require_bare_names(weights, "the weights that were sent")
    return weights


def _no_weights(received: str) -> MalformedMessage:
    return MalformedMessage(
        "the weights to begin with cannot be used",
        expected="names and tensors alone, laid out as comity does",
        received=received,
        action="send the state dict that the contract names",
    )


def begin_with(model: nn.Module, weights: Mapping[str, Tensor], fresh: tuple[str, ...] = ()) -> None:
    """Gives a model, before it has adapters, the weights to begin with.

    Args:
        model: The model.
        weights: The weights.
        fresh: Names or patterns of tensors that begin as the seed decides, whatever the weights have of them.

    Raises:
        InvalidValue: The weights are another model's.
    """
    own = {name: each for name, each in model.state_dict().items() if not fits(name, fresh)}
    given = {name: each for name, each in weights.items() if not fits(name, fresh)}
    aliases = _aliases(model)
    for name in [*own, *given]:
        if name in own and name not in given and aliases.get(name, name) in given:
            continue
        said = [
            f"{each[name].dtype} {list(each[name].shape)}" if name in each else "no such tensor"
            for each in (own, given)
        ]
        if said[0] != said[1]:
            raise InvalidValue(
                f"the weights to begin with are another model's: {name}",
                expected=said[0],
                received=said[1],
                action="name the model and options that they were taken from; for a new head, name it in session.model.fresh",
            )
    model.load_state_dict(given, strict=False)


def _aliases(model: nn.Module) -> dict[str, str]:
    """Of tensors with several names, the first, by each of the others."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            found[name] = first[id(tensor)]
        first.setdefault(id(tensor), name)
    return found
