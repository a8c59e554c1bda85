"""What of a module crosses: the tensors that a session trains. The rest is the same at all parties, and stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comity.errors import TensorMismatch


@dataclass(frozen=True)
class Crossing:
    """The part of a module's state dict that crosses.

    It has every parameter that is trained, once, whatever names it goes by, and every buffer of a module that is trained:
    one that has no parameters of its own goes with those of the module around it. What holds −inf, such as a mask, is a
    constant and stays.

    Attributes:
        names: The tensors, in the order of the state dict.
        rest: Those that stay, tied ones left out.
    """

    names: tuple[str, ...]
    rest: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> Crossing:
        """What crosses of a module, by which of its parameters want gradients.

        Raises:
            TensorMismatch: A parameter is not finite, or the module keeps extra state that is no tensor.
        """
        trained = {id(each): each.requires_grad for each in model.parameters()}
        buffers = _buffers(model)
        names, rest, seen = list[str](), list[str](), set[int]()
        for name, tensor in model.state_dict(keep_vars=True).items():
            if not isinstance(tensor, Tensor):
                raise TensorMismatch(
                    f"{name} of the model cannot cross",
                    expected="tensors: what a module keeps as extra state reaches no other party",
                    received=type(tensor).__name__,
                    action="keep it as a buffer, or leave out get_extra_state",
                )
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            is_parameter = id(tensor) in trained
            if is_parameter and not _is_finite(tensor):
                raise TensorMismatch(
                    f"parameter {name} is not finite",
                    expected="finite weights to begin with",
                    received="NaN or infinity",
                    action="correct how the model begins; a mask with -inf is a buffer",
                )
            crosses = trained[id(tensor)] if is_parameter else buffers.get(name, True) and _is_finite(tensor)
            (names if crosses else rest).append(name)
        return cls(tuple(names), tuple(rest))

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """The live tensors that cross."""
        state = model.state_dict()
        return {name: state[name] for name in self.names}

    def kept(self, model: nn.Module) -> dict[str, Tensor]:
        """The live tensors that stay."""
        state = model.state_dict()
        return {name: state[name] for name in self.rest}

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Sets the tensors that cross.

        Raises:
            TensorMismatch: The state has others.
        """
        if state.keys() != set(self.names):
            other = sorted(state.keys() ^ set(self.names))
            raise TensorMismatch("the tensors are not the model's", expected=f"{len(self.names)}", received=other[:3])
        model.load_state_dict(state, strict=False)


def train(model: nn.Module) -> nn.Module:
    """Puts a module into training mode, but for those of its parts that are frozen: their statistics stay.

    Args:
        model: The module; what of it wants gradients is trained.
    """
    model.train()
    for module in model.modules():
        own = [*module.parameters(recurse=False)]
        if own and not any(each.requires_grad for each in own) and any(True for _ in module.buffers(recurse=False)):
            module.train(mode=False)
    return model


def _buffers(model: nn.Module) -> dict[str, bool]:
    """Which buffers go with parameters that are trained, by name; for models that are trained in part."""
    if all(each.requires_grad for each in model.parameters()):
        return {}
    found: dict[str, bool] = {}
    _walk(model, "", True, found)
    return found


def _walk(module: nn.Module, prefix: str, around: bool, found: dict[str, bool]) -> None:
    own = [each.requires_grad for each in module.parameters(recurse=False)]
    below = [each.requires_grad for each in module.parameters()]
    trained = any(own) if own else any(below) if below else around
    for name, _ in module.named_buffers(recurse=False):
        found[f"{prefix}{name}"] = trained
    for name, child in module.named_children():
        _walk(child, f"{prefix}{name}.", any(below) if below else around, found)


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    return bool(torch.isfinite(tensor).all())
