"""The models of a contract, as its task sizes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comity.contract import Contract, ModelSpec, TaskSpec
from comity.errors import InvalidValue, MalformedMessage, ModelSignatureMismatch, UnknownWeights
from comity.models import OwnModels, build
from comity.models.crossing import Crossing
from comity.models.form import give_form, without_adapters
from comity.models.weights import begin_with
from comity.randomness import derive, seeded
from comity.tasks.registry import require_usable
from comity.tensors import Layout

NO_MODELS: OwnModels = {}

Weights = Callable[[str], Mapping[str, Tensor]]
"""The weights of a digest, where this party has them; raises `UnknownWeights` where it has not."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a model takes and gives, where that is not what its task says.

    Attributes:
        inputs: Shape of one input.
        outputs: How many numbers it gives for one.
    """

    inputs: tuple[int, ...]
    outputs: int


def no_weights(digest: str) -> Mapping[str, Tensor]:
    """For who keeps none.

    Raises:
        UnknownWeights: Always.
    """
    raise UnknownWeights(
        "There are no weights here to begin with",
        expected=digest,
        received="none",
        action="name their file in [weights] of node.toml",
    )


def build_model(
    spec: ModelSpec,
    task: TaskSpec,
    seed: int,
    own: OwnModels = NO_MODELS,
    weights: Weights = no_weights,
    *,
    size: ModelSize | None = None,
) -> nn.Module:
    """A model of the size that a task needs, of the form and with the weights that a contract names.

    Args:
        spec: The model.
        task: What it is for.
        seed: Decides the weights that are not given.
        own: What the node's own configuration calls models, and where they are.
        weights: Gives those that the model begins with.
        size: Its size, where the protocol has it another than the task's.

    Raises:
        UnknownModel: The name is unknown here.
        UnknownTask: The kind of task is unknown here.
        UnknownWeights: The weights that it begins with are not here.
        InvalidValue: The task is described wrongly, or options, form or weights do not fit.
    """
    size = size or task_size(task)
    model = build(spec.name, input_shape=size.inputs, outputs=size.outputs, options=spec.options, seed=seed, own=own)
    if spec.initial:
        begin_with(model, weights(spec.initial), spec.fresh)
    return _formed(model, spec, seed)


def signed_model(
    spec: ModelSpec,
    task: TaskSpec,
    seed: int,
    own: OwnModels = NO_MODELS,
    weights: Weights = no_weights,
    *,
    size: ModelSize | None = None,
) -> ModelSpec:
    """A model spec with the signature that the model has here; see `build_model`."""
    model = build_model(spec, task, seed, own, weights, size=size)
    return spec.model_copy(update=dict(zip(("signature", "base"), _signature(model), strict=True)))


def task_size(task: TaskSpec) -> ModelSize:
    """What models of a task take and give where their protocol does not say otherwise."""
    return ModelSize(task.inputs.shape, require_usable(task).outputs(task))


def _formed(model: nn.Module, spec: ModelSpec, seed: int, device: str = "cpu") -> nn.Module:
    with seeded(derive(seed, "adapters")), torch.device(device):
        return give_form(model, spec)


def _signature(model: nn.Module) -> tuple[str, str]:
    """The signature of what crosses of a model, and the digest of what stays; empty where nothing does."""
    crossing = Crossing.of(model)
    kept = crossing.kept(model)
    return Layout.of(crossing.state(model)).signature, Layout.of(kept).digest(kept) if kept else ""


def model_outline(
    spec: ModelSpec, task: TaskSpec, own: OwnModels = NO_MODELS, *, size: ModelSize | None = None
) -> nn.Module | None:
    """A model without weights, on the device `meta`, which takes no memory; None for what cannot be built so.

    Args:
        spec: The model, whose name and options may be a peer's.
        task: What it is for.
        own: See `build_model`.
        size: See `build_model`.

    Raises:
        UnknownModel: Its name is unknown here.
    """
    try:
        size = size or task_size(task)
        outline = build(
            spec.name,
            input_shape=size.inputs,
            outputs=size.outputs,
            options=spec.options,
            seed=0,
            own=own,
            device="meta",
        )
        return _formed(outline, spec, 0, "meta")
    except InvalidValue:
        # Some factories look at weights as they make them; whoever builds it says what is wrong, if anything is.
        return None


def model_bytes(spec: ModelSpec, task: TaskSpec, own: OwnModels = NO_MODELS, *, size: ModelSize | None = None) -> int:
    """Bytes of a model's tensors, found out without making them; see `model_outline`. 0 for what has no outline."""
    outline = model_outline(spec, task, own, size=size)
    tensors = {} if outline is None else outline.state_dict()
    return sum(each.numel() * each.element_size() for each in tensors.values())


def agreed_model(
    party: str,
    contract: Contract,
    model: str,
    own: OwnModels = NO_MODELS,
    weights: Weights = no_weights,
    *,
    size: ModelSize | None = None,
) -> nn.Module:
    """One of a contract's models, with its initial weights.

    Args:
        party: This party, for errors.
        contract: The contract.
        model: What the protocol calls the model.
        own: What the node's own configuration calls models, and where they are.
        weights: Gives those that models begin with.
        size: See `build_model`.

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
    built = build_model(wanted, contract.task, contract.seed, own, weights, size=size)
    signature, base = _signature(built)
    if signature != wanted.signature:
        raise ModelSignatureMismatch(
            f"{party} builds other tensors for {wanted.name}",
            expected=wanted.signature,
            received=signature,
            action="run the same version of comity, and of the model, on both sides",
        )
    if base != wanted.base:
        raise ModelSignatureMismatch(
            f"{party} has other weights in what is not trained of {wanted.name}",
            expected=wanted.base or "nothing that stays",
            received=base or "nothing that stays",
            action="begin with the same weights on both sides, and the same build of torch where the seed decides them",
        )
    return built


def whole_model(  # noqa: PLR0913
    spec: ModelSpec,
    task: TaskSpec,
    seed: int,
    crossed: Mapping[str, Tensor],
    own: OwnModels = NO_MODELS,
    weights: Weights = no_weights,
    *,
    size: ModelSize | None = None,
) -> dict[str, Tensor]:
    """All tensors of a model of which a part crossed, with its adapters worked in; others can load them without them.

    Args:
        spec: The model.
        task: What it is for.
        seed: See `build_model`.
        crossed: What crossed, as a session left it.
        own: See `build_model`.
        weights: See `build_model`.
        size: See `build_model`.
    """
    model = build_model(spec, task, seed, own, weights, size=size)
    Crossing.of(model).load(model, crossed)
    return dict(without_adapters(model).state_dict())
