"""From a model's name to its module: the built-in factories, those that installed packages add, and a node's own.

A name may come from a peer. So what it leads to is looked up, never imported: only the node's own `[models]` says where
code is.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from comity.contract import Option
from comity.errors import InvalidValue, UnknownModel
from comity.models.catalogue import BUILT_IN, TORCHVISION, targets
from comity.models.own import Factory, OwnModels, imported, own_factory, torchvision_factory
from comity.randomness import derive, seeded
from comity.suggestions import did_you_mean

_MOST_OUTPUTS = 1_000_000
"""Far above any task, and low enough that a mistyped number ends in an error and not in a full memory."""

_WRAPPERS: Mapping[str, str] = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "AveragedModel": "module",
}
"""What wraps a module, by the class, and what it calls the module."""

_OPTION_TYPES: Mapping[str, tuple[type, ...]] = {"bool": (bool,), "float": (float, int), "int": (int,), "str": (str,)}


def build(  # noqa: PLR0913
    name: str,
    *,
    input_shape: tuple[int, ...],
    outputs: int,
    options: Mapping[str, Option],
    seed: int,
    own: OwnModels | None = None,
    device: str = "cpu",
) -> nn.Module:
    """Builds a model on the CPU, with initial weights that the seed alone decides.

    Args:
        name: One of `names()`, `torchvision:` and the name of one of its classifiers or models of masks, or one of `own`.
        input_shape: The shape of one sample, without the batch: `(channels, height, width)` for images.
        outputs: How many numbers the model gives for a sample, from 1 to a million.
        options: The factory's own keyword arguments.
        seed: The session's seed; the weights come from `derive(seed, "initial weights")`.
        own: What the party calls models of its own, and where they are; see `comity.models.own`.
        device: `meta` for a model without weights, which takes no memory whatever its size.

    Returns:
        The model, in training mode. Its weights are bit-identical for the same torch build and instruction set; without
        AVX2 they may differ in the last bit. torch's global random state is as it was.

    Raises:
        UnknownModel: No factory has this name, or the package that has it cannot be imported.
        InvalidValue: A size or an option is one that the model cannot be built with.
    """
    factory = _factory(name, own or {})
    if not input_shape or any(size < 1 for size in input_shape):
        raise InvalidValue(
            f"Model {name!r} cannot take this input",
            expected="sizes of 1 or more",
            received=input_shape,
            action="check the shape of the data's samples",
        )
    if not 1 <= outputs <= _MOST_OUTPUTS:
        raise InvalidValue(
            f"Model {name!r} cannot have so many outputs",
            expected=f"1 to {_MOST_OUTPUTS}",
            received=outputs,
            action="check the labels of the data",
        )
    _check_options(name, factory, input_shape, outputs, options)
    with seeded(derive(seed, "initial weights")), torch.device(device):
        try:
            model = factory(input_shape, outputs, **options)
            if isinstance(model, nn.Module):
                _give_sizes(model, input_shape)
        except (RuntimeError, TypeError, ValueError) as error:
            raise InvalidValue(
                f"Model {name!r} cannot be built for input shape {input_shape} and {outputs} outputs",
                expected="sizes and options that it was made for",
                received=error,
                action="choose another model, or other options",
            ) from error
    if not isinstance(model, nn.Module):
        raise InvalidValue(
            f"The factory of model {name!r} makes no model",
            expected="a torch.nn.Module",
            received=type(model).__name__,
            action="correct the factory in the package that registers it",
        )
    _require_bare(name, model)
    return model


def _give_sizes(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Gives lazy layers their sizes, by a forward pass that leaves no other trace."""
    if any(is_lazy(each) for each in [*model.parameters(), *model.buffers()]):
        model.eval()
        with torch.no_grad():
            model(torch.zeros(2, *input_shape))
        model.train()


def _require_bare(name: str, model: nn.Module) -> None:
    """Checks that a factory gives the module itself, not one that a tool has wrapped, whose names are longer.

    Raises:
        InvalidValue: It does not.
    """
    for place, module in model.named_modules():
        inner = _WRAPPERS.get(type(module).__name__)
        if inner is not None:
            raise InvalidValue(
                f"Model {name!r} is wrapped: {place or 'the module itself'} is a {type(module).__name__}",
                expected="the module in it: other parties' tensors have no such prefix in their names",
                received=f"names with {inner}.",
                action=f"have the factory give what it wraps, which is its .{inner}",
            )


def _factory(name: str, own: OwnModels) -> Factory:
    if name not in own and name.replace("_", "-") in BUILT_IN:
        name = name.replace("_", "-")
    # Nothing replaces a built-in model, and looking through all that is installed takes its time.
    if name in own and name not in BUILT_IN:
        return own_factory(name, own[name])
    if name.startswith(TORCHVISION):
        return torchvision_factory(name.removeprefix(TORCHVISION))
    known = dict(BUILT_IN) if name in BUILT_IN else targets()
    if ":" in name and name not in known:
        raise UnknownModel(
            "A contract names models, not where their code is",
            expected=f"a name that each side knows: {', '.join(sorted({*known, *own}))}, or {TORCHVISION}<name>",
            received=repr(name[:200]),
            action='give it a name in [models] of node.toml on both sides, for example net = "python:package.module:factory"',
        )
    if name not in known:
        everything = {*known, *own}
        others = "others are named in [models] of node.toml, or installed; comity models lists them"
        raise UnknownModel(
            "There is no model of this name",
            expected=f"one of {', '.join(sorted(everything))}",
            received=repr(name),
            action=did_you_mean(name, everything, others, spelled="{!r}"),
        )
    return imported(name, known[name], "repair or remove the package that adds it")


def _check_options(
    name: str,
    factory: Factory,
    input_shape: tuple[int, ...],
    outputs: int,
    options: Mapping[str, Option],
) -> None:
    """Holds the options against the factory's signature; a parameter of any other annotation takes any value."""
    signature = inspect.signature(factory)
    parameters = {
        parameter.name: parameter
        for parameter in list(signature.parameters.values())[2:]
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    try:
        signature.bind(input_shape, outputs, **options)
    except TypeError as error:
        raise InvalidValue(
            f"Model {name!r}: {error}",
            expected=f"options among {', '.join(parameters) or 'none'}",
            received=", ".join(options) or "none",
            action="correct the model's options",
        ) from error
    for option, value in options.items():
        annotation = parameters[option].annotation if option in parameters else None
        # A module with postponed annotations has their source here in place of the type.
        wanted = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        accepted = _OPTION_TYPES.get(wanted)
        if accepted and not (isinstance(value, accepted) and isinstance(value, bool) == (wanted == "bool")):
            action = "correct the model's options"
            raise InvalidValue(
                f"Model {name!r}: option {option!r}", expected=wanted, received=repr(value), action=action
            )
