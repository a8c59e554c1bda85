"""The models of a contract, as its task sizes them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from comity.contract import Contract, ModelSpec, Option, TaskSpec
from comity.errors import InvalidValue, MalformedMessage, ModelSignatureMismatch
from comity.models import OwnModels, build
from comity.tasks.registry import require_usable
from comity.tensors import Layout

NO_MODELS: OwnModels = {}


def build_model(
    name: str, options: Mapping[str, Option], task: TaskSpec, seed: int, own: OwnModels = NO_MODELS
) -> nn.Module:
    """A model of the size that a task needs, with initial weights that the seed alone decides.

    Args:
        name: The model's name.
        options: Options of its factory.
        task: What it is for.
        seed: Decides the weights.
        own: What the node's own configuration calls models, and where they are.

    Raises:
        UnknownModel: The name is unknown here.
        UnknownTask: The kind of task is unknown here.
        InvalidValue: The task is described wrongly, or the options do not fit.
    """
    outputs = require_usable(task).outputs(task)
    return build(name, input_shape=task.inputs.shape, outputs=outputs, options=options, seed=seed, own=own)


def signed_model(
    name: str, options: dict[str, Option], task: TaskSpec, seed: int, own: OwnModels = NO_MODELS
) -> ModelSpec:
    """A model spec with the signature that the model has here; see `build_model`."""
    model = build_model(name, options, task, seed, own)
    return ModelSpec(name=name, options=options, signature=Layout.of(model.state_dict()).signature)


def model_outline(contract: Contract, model: str, own: OwnModels = NO_MODELS) -> nn.Module | None:
    """A model without weights, on the device `meta`, which takes no memory; None for what cannot be built so.

    Args:
        contract: The contract, whose name and sizes may be a peer's.
        model: What the protocol calls the model.
        own: See `build_model`.

    Raises:
        UnknownModel: Its name is unknown here.
    """
    wanted, task = contract.models[model], contract.task
    try:
        outputs = require_usable(task).outputs(task)
        return build(
            wanted.name,
            input_shape=task.inputs.shape,
            outputs=outputs,
            options=wanted.options,
            seed=contract.seed,
            own=own,
            device="meta",
        )
    except InvalidValue:
        # Some factories look at weights as they make them; whoever builds it says what is wrong, if anything is.
        return None


def model_bytes(contract: Contract, model: str, own: OwnModels = NO_MODELS) -> int:
    """Bytes of a model's tensors, found out without making them; see `model_outline`. 0 for what has no outline."""
    outline = model_outline(contract, model, own)
    tensors = {} if outline is None else outline.state_dict()
    return sum(each.numel() * each.element_size() for each in tensors.values())


def agreed_model(party: str, contract: Contract, model: str, own: OwnModels = NO_MODELS) -> nn.Module:
    """One of a contract's models, with its initial weights.

    Args:
        party: This party, for errors.
        contract: The contract.
        model: What the protocol calls the model.
        own: What the node's own configuration calls models, and where they are.

    Raises:
        MalformedMessage: The contract has no such model.
        UnknownModel: Its name is unknown here.
        ModelSignatureMismatch: The name builds other tensors here.
        InvalidValue: Its options do not fit.
    """
    wanted = contract.models.get(model)
    if wanted is None:
        raise MalformedMessage(
            "the contract lacks a model",
            expected=model,
            received=", ".join(contract.models) or "none",
            action=f"name it in session.models.{model}",
        )
    built = build_model(wanted.name, wanted.options, contract.task, contract.seed, own)
    signature = Layout.of(built.state_dict()).signature
    if signature != wanted.signature:
        raise ModelSignatureMismatch(
            f"{party} builds other tensors for {wanted.name}",
            expected=wanted.signature,
            received=signature,
            action="run the same version of comity, and of the model, on both sides",
        )
    return built
