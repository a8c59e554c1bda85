"""What of a model is trained, and what of its answer is meant: the same at all parties, as their contract has it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from comity.contract import LoraSpec, ModelForm
from comity.errors import InvalidValue
from comity.models.split import end_before

_ADAPTER = "lora_"
_BASE_LAYER = ".base_layer."


def give_form(model: nn.Module, form: ModelForm) -> nn.Module:
    """Gives a model adapters, freezes what is not trained of it, and has it answer with what is meant.

    The caller seeds what adapters draw.

    Args:
        model: The model, which is changed.
        form: What is agreed on.

    Returns:
        The model, whose parameters want gradients where they are trained.

    Raises:
        InvalidValue: A pattern fits nothing, or the library of the adapters is not installed.
    """
    if form.until:
        end_before(model, form.until)
    if form.lora is not None:
        _adapt(model, form.lora, form.trainable)
    elif form.trainable:
        _require_fitting("trainable", form.trainable, [name for name, _ in model.named_parameters()])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(fits(name, form.trainable))
    if form.answer:
        model.register_forward_hook(_Answer(form.answer))
    return model


class _Answer:
    """Takes one part of what a model gives."""

    def __init__(self, part: str) -> None:
        self._part = part

    def __call__(self, module: nn.Module, inputs: object, given: Any) -> Any:
        """See `torch.nn.Module.register_forward_hook`."""
        del module, inputs
        part, found = self._part, None
        if isinstance(given, Mapping):
            found = given.get(part)
        elif hasattr(given, part) and not isinstance(given, Tensor):
            found = getattr(given, part)
        elif isinstance(given, tuple | list) and part.isdecimal() and int(part) < len(given):
            found = given[int(part)]
        if not isinstance(found, Tensor):
            raise InvalidValue(
                f"the model's answer has no tensor {part!r}",
                expected=parts_of(given),
                received=part,
                action="correct session.model.answer",
            )
        return found


def parts_of(given: object) -> str:
    """The parts of a model's answer that are tensors, in words."""
    if isinstance(given, Tensor):
        return "session.model.answer left out: the answer is one tensor"
    if isinstance(given, Mapping):
        names = [str(name) for name, each in given.items() if isinstance(each, Tensor)]
    elif isinstance(given, tuple | list):
        names = [str(place) for place, each in enumerate(given) if isinstance(each, Tensor)]
    else:
        names = []
    return f"one of {', '.join(names)}" if names else "a tensor"


def _adapt(model: nn.Module, lora: LoraSpec, trainable: Sequence[str]) -> None:
    try:
        peft: Any = import_module("peft")
    except ImportError as error:
        raise InvalidValue(
            f"LoRA needs PEFT: {error}", action="install the extra: pip install 'comity[peft]'"
        ) from error
    parameters = [name for name, _ in model.named_parameters()]
    _require_fitting("trainable", trainable, parameters)
    layers = {
        name: module
        for name, module in model.named_modules()
        if name and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }
    _require_fitting("lora.layers", lora.layers, list(layers))
    chosen = [name for name in layers if fits(name, lora.layers) or (not lora.layers and not _own(name, trainable))]
    if not chosen:
        raise InvalidValue(
            "no layer of the model can have adapters",
            expected="fully connected or convolutional layers that are not trained themselves",
            received=", ".join(trainable) or "none",
            action="correct session.model.lora.layers, or leave out session.model.lora",
        )
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="|".join(re.escape(name) for name in chosen),
    )
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        plain = name.replace(_BASE_LAYER, ".")
        parameter.requires_grad_(_ADAPTER in name or (bool(trainable) and fits(plain, trainable)))


def _own(layer: str, trainable: Sequence[str]) -> bool:
    return bool(trainable) and any(fits(f"{layer}.{name}", trainable) for name in ("weight", "bias"))


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns fits a name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _require_fitting(what: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    """Checks that every pattern fits something.

    Raises:
        InvalidValue: One does not.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidValue(
                f"session.model.{what} fits nothing of the model",
                expected=", ".join(names)[:300],
                received=pattern,
                action='name what there is, for example "head.*"',
            )


@torch.no_grad()
def without_adapters(model: nn.Module) -> nn.Module:
    """Works a model's adapters into the layers that they stand beside, and takes them off.

    Args:
        model: The model, which is changed; one without adapters stays as it is.
    """
    for name, module in [*model.named_modules()]:
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            around, _, own = name.rpartition(".")
            setattr(model.get_submodule(around), own, module.get_base_layer())
    return model
