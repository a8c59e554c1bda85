"""Models that somebody has as code: whether a factory of theirs can be used, before any training begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from comity.contract import TaskSpec
from comity.data import Dataset
from comity.data.dataset import CLASSIFICATION
from comity.errors import ComityError, InvalidValue, ModelSignatureMismatch
from comity.models import Factory
from comity.tasks import Objective, objective_of, require_usable


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


def require_sized(model: object, party: str) -> None:
    """Checks that every parameter of a module has its size.

    Raises:
        InvalidValue: A lazy layer has not.
    """
    lazy = [name for name, each in model.named_parameters() if is_lazy(each)] if isinstance(model, nn.Module) else []
    if lazy:
        raise InvalidValue(
            f"{party}'s model has lazy layers",
            expected="parameters whose sizes are known",
            received=", ".join(lazy)[:200],
            action="give the layers their sizes, or have the factory call the module once",
        )


def require_fits(model: nn.Module, samples: Dataset, task: TaskSpec, party: str) -> None:
    """Tries a model on two samples.

    Args:
        model: The model.
        samples: The party's samples.
        task: What the model is for.
        party: The party, for errors.

    Raises:
        InvalidValue: It cannot take them, or says something else of them than a score for each class.
    """
    preprocessing, outputs = task.inputs.preprocessing, require_usable(task).outputs(task)
    inputs = samples.prepare(samples.inputs[:2], preprocessing.mean, preprocessing.std)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found: Any = model(inputs)
    except Exception as error:
        raise InvalidValue(
            f"{party}'s model cannot take {party}'s data",
            expected=f"a model of {list(samples.input_shape)} inputs, {inputs.dtype}",
            received=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            action="correct the model, or the shape of the data",
        ) from error
    finally:
        model.train(training)
    if samples.task != CLASSIFICATION:
        _require_answer(found, samples, objective_of(task), party)
        return
    shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or shape != [len(inputs), outputs] or not found.is_floating_point():
        raise InvalidValue(
            f"{party}'s model says something else than a score for each class",
            expected=f"floats [{len(inputs)}, {outputs}] for {len(inputs)} samples",
            received=f"{found.dtype} {shape}" if isinstance(found, Tensor) else shape,
            action="give its last layer as many outputs as there are classes, and no softmax",
        )


def _require_answer(found: Any, samples: Dataset, objective: Objective, party: str) -> None:
    """Checks that an answer is one to the task of samples without classes."""
    try:
        objective.loss(found, samples.targets_of(torch.arange(min(2, len(samples)))), "none")
    except (ComityError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidValue(
            f"{party}'s model says something else than {party}'s data want",
            expected=f"{samples.outputs} numbers for each sample, or for each of its pixels",
            received=str(error).splitlines()[0],
            action="correct its last layer",
        ) from error


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
