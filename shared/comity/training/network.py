"""A module as trainings and evaluations use it: what of it crosses, and how it is called."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from comity.errors import InvalidValue
from comity.models.crossing import Crossing, train
from comity.randomness import seeded
from comity.tasks.objective import Outputs
from comity.tensors import Layout, State, on_device

_HALF = (torch.float16, torch.bfloat16)


class Network:
    """A module with the part of it that crosses.

    Whatever a forward pass draws is drawn from a seed. Inputs come in the precision of the weights, answers are float32 or
    wider. Where a batch is one number for a channel, batch normalization goes by the statistics that it has.

    Args:
        model: The module; its weights are where every session begins.
        device: Where it lives.
        heads: What it may answer with a dict of, in tasks of several heads; nothing where it answers with one tensor.

    Attributes:
        module: What is trained.
        evaluated: A copy that evaluations call, with whatever weights they left, so that none touches a training in
            progress.
        layout: Layout of what crosses.
        initial_state: What crosses, as the module began.
        parameters: The parameters that are trained; they cross.
    """

    def __init__(self, model: nn.Module, device: torch.device, heads: tuple[str, ...] = ()) -> None:
        self._heads = heads
        _lay_out(model)
        self._crossing = Crossing.of(model)
        state = self._crossing.state(model)
        self.layout = Layout.of(state)
        self.initial_state: State = {name: tensor.clone() for name, tensor in state.items()}
        self.parameters = tuple(name for name, each in model.named_parameters() if each.requires_grad)
        self._device = device
        self._dtype = input_dtype(model)
        take_one_number(model)
        self.module = train(model.to(device))
        self.evaluated = copy.deepcopy(self.module).eval().requires_grad_(False)
        self._written = {**dict(self.evaluated.named_buffers()), **_renormed(self.evaluated)}

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [each for each in self.module.parameters() if each.requires_grad]

    def load(self, state: State) -> None:
        """Sets the module that is trained to a state, and into training mode."""
        self._crossing.load(self.module, state)
        train(self.module)

    def state(self) -> dict[str, Tensor]:
        """What crosses of the module that is trained: the live tensors."""
        return self._crossing.state(self.module)

    def forward(self, inputs: Tensor, seed: int) -> Outputs:
        """What the module that is trained says of a batch.

        Args:
            inputs: The batch.
            seed: Decides what its layers draw.
        """
        with seeded(seed, self._device):
            return self._answer(self.module(self.cast(inputs)))

    def cast(self, inputs: Tensor) -> Tensor:
        """Inputs in the precision of the weights."""
        return inputs if self._dtype is None else inputs.to(self._dtype)

    def on_device(self, state: State) -> dict[str, Tensor]:
        """A state's tensors where the module lives; for `evaluate`."""
        return on_device(state, self._device)

    @torch.inference_mode()
    def evaluate(self, weights: Mapping[str, Tensor], inputs: Tensor, seed: int) -> Outputs:
        """What the module says of a batch in evaluation mode.

        The same of the same: whatever counts its calls, counts from where the state has it, and the state stays as it is.

        Args:
            weights: What crosses, by `on_device`.
            inputs: The batch.
            seed: Decides what its layers draw.
        """
        written = {name: weights.get(name, own).clone() for name, own in self._written.items()}
        with seeded(seed, self._device):
            # Not strict: what stays of the module is its own.
            return self._answer(functional_call(self.evaluated, {**weights, **written}, (self.cast(inputs),)))

    def _answer(self, answer: object) -> Outputs:
        return widened(answer, by_head=bool(self._heads))


def take_one_number(model: nn.Module) -> list[RemovableHandle]:
    """Has batch normalization go by the statistics that it has, where a batch is one number for a channel.

    Args:
        model: Whose layers are meant.

    Returns:
        What takes it back.
    """
    layers = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    before = [each.register_forward_pre_hook(_rest_on_one_number) for each in layers]
    return before + [each.register_forward_hook(_resume) for each in layers]


def _lay_out(model: nn.Module) -> None:
    """Lays tensors out as they cross, one value behind the other: products of others are rounded otherwise."""
    for each in (*model.parameters(), *model.buffers()):
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        last = formats.get(each.ndim)
        if not each.is_contiguous() and (last is None or not each.is_contiguous(memory_format=last)):
            each.data = each.data.contiguous()


def _renormed(model: nn.Module) -> dict[str, Tensor]:
    """The weights that a forward pass writes to: those of embeddings with a greatest norm."""
    places = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None
    }
    return {name: each for name, each in model.named_parameters() if id(each) in places}


def densify(parameters: list[nn.Parameter]) -> None:
    """Makes sparse gradients dense, which not every optimiser takes."""
    for each in parameters:
        if each.grad is not None and each.grad.is_sparse:
            each.grad = each.grad.to_dense()


def widened(answer: object, *, by_head: bool) -> Outputs:
    """What a module gives, in float32 or wider.

    Args:
        answer: What it gives.
        by_head: Whether it may give a dict by head.

    Raises:
        InvalidValue: It is something else than tensors.
    """
    if by_head and isinstance(answer, Mapping):
        return {str(name): _wide(each) for name, each in answer.items()}
    return _wide(answer)


def input_dtype(model: nn.Module) -> torch.dtype | None:
    """The precision of inputs; None for that in which they come."""
    if any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules()):
        # Numbers of words, which half precision would round.
        return None
    first = next((each for each in model.parameters() if each.is_floating_point()), None)
    return None if first is None else first.dtype


def _wide(answer: object) -> Tensor:
    if not isinstance(answer, Tensor):
        found = ", ".join(map(str, answer)) if isinstance(answer, Mapping) else f"{type(answer).__name__}"
        raise InvalidValue(
            "the model's answer is no tensor",
            expected="one tensor, or session.model.answer with the key or the position of the one that is meant",
            received=found,
            action='set session.model.answer, for example "logits" or "0"',
        )
    return answer.float() if answer.dtype in _HALF else answer


def _rest_on_one_number(module: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
    batch = inputs[0]
    if module.training and module.track_running_stats and batch.shape[1] == batch.numel():
        module.training = False
        module.comity_rests = True  # type: ignore[assignment]


def _resume(module: _BatchNorm, inputs: object, answer: object) -> None:
    del inputs, answer
    if getattr(module, "comity_rests", False):
        module.training = True
        del module.comity_rests
