"""Models that a user has as code: whether a factory of theirs can be used, before any training begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from comity.errors import InvalidValue, ModelSignatureMismatch
from comity.models import Factory


def factory(model: Callable[..., nn.Module], party: str) -> Factory:
    """A factory as the library calls it, `(input_shape, outputs, **options)`.

    Args:
        model: What makes a module: called with nothing, or with the shape of an input and the number of outputs where it
            needs two arguments.
        party: Whose it is, for errors.

    Raises:
        InvalidValue: It is no factory, or needs other arguments.
    """
    if isinstance(model, nn.Module):
        raise InvalidValue(
            f"{party}'s model is a module",
            expected="what makes one, since every party builds its own",
            received=f"a {type(model).__name__}",
            action=f"pass {type(model).__name__} itself or a lambda; to begin with its weights, lambda: copy.deepcopy(model)",
        )
    if not callable(model):
        raise InvalidValue(
            f"{party}'s model cannot be used",
            expected="the name of a model, or a callable that gives a torch.nn.Module",
            received=type(model).__name__,
            action="comity models lists the names",
        )
    needed = _needed(model)
    if not needed:
        return lambda input_shape, outputs, **options: model(**options)  # noqa: ARG005
    if len(needed) != 2:
        raise InvalidValue(
            f"{party}'s model needs arguments",
            expected="none, or (input_shape, outputs)",
            received=", ".join(needed),
            action="pass a lambda that gives them, such as lambda: Net(10)",
        )
    return model


def _needed(model: Callable[..., Any]) -> list[str]:
    """The arguments that a callable cannot do without."""
    try:
        parameters = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.default is each.empty and each.kind in kinds]


def require_same(one: nn.Module, other: nn.Module, parties: tuple[str, str]) -> None:
    """Checks that two parties' models have the same tensors.

    Raises:
        ModelSignatureMismatch: They have not.
    """
    first, second = (
        {name: (each.dtype, list(each.shape)) for name, each in model.state_dict().items()} for model in (one, other)
    )
    for name in [*first, *second]:
        mine, theirs = first.get(name), second.get(name)
        if mine != theirs:
            said = ["no such tensor" if each is None else f"{each[0]} {each[1]}" for each in (mine, theirs)]
            raise ModelSignatureMismatch(
                f"{parties[1]}'s model has other tensors than {parties[0]}'s",
                expected=f"{name}: {said[0]}",
                received=said[1],
                action="give both the same factory",
            )
