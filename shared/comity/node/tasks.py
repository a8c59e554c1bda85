"""The contract's model and task, as this installation has them."""

from __future__ import annotations

from torch import nn

from comity.contract import Contract, ModelSpec, TaskSpec
from comity.errors import ModelSignatureMismatch, TaskMismatch
from comity.models import build
from comity.tensors import Layout


def signed_model(name: str, options: dict[str, bool | int | float | str], task: TaskSpec, seed: int) -> ModelSpec:
    """A model spec with the signature that the model has here.

    Raises:
        UnknownModel: The name is unknown here.
        InvalidValue: The options do not fit.
    """
    model = build(name, input_shape=task.input_shape, classes=task.classes, options=options, seed=seed)
    return ModelSpec(name=name, options=options, signature=Layout.of(model.state_dict()).signature)


def require_same_task(party: str, own: TaskSpec, wanted: TaskSpec) -> None:
    """Checks that a party's data, or games, are for the contract's task.

    Raises:
        TaskMismatch: They are for another.
    """
    if own != wanted:
        action = "use data with inputs of one shape and the same classes on both sides"
        if "reinforcement" in {own.kind, wanted.kind}:
            action = "use one environment on both sides"
        raise TaskMismatch(
            f"{party}'s data are for another task",
            expected=described(wanted),
            received=described(own),
            action=action,
        )


def agreed_model(party: str, contract: Contract) -> nn.Module:
    """The contract's model, with its initial weights.

    Raises:
        UnknownModel: Its name is unknown here.
        ModelSignatureMismatch: The name builds other tensors here.
        InvalidValue: Its options do not fit.
    """
    wanted, task = contract.model, contract.task
    model = build(
        wanted.name, input_shape=task.input_shape, classes=task.classes, options=wanted.options, seed=contract.seed
    )
    signature = Layout.of(model.state_dict()).signature
    if signature != wanted.signature:
        raise ModelSignatureMismatch(
            f"{party} builds other tensors for {wanted.name}",
            expected=wanted.signature,
            received=signature,
            action="run the same version of comity, and of the model, on both sides",
        )
    return model


def described(task: TaskSpec) -> str:
    """A task in words."""
    shape = "×".join(str(length) for length in task.input_shape)
    if task.kind == "reinforcement":
        return f"{task.environment}: observations of {shape} numbers, {task.classes} actions"
    return f"{task.kind} of {shape} inputs into {task.classes} classes"
