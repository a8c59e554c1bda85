"""A model is tried before a session: what the session does with it many times is done once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from comity.data import Dataset
from comity.data.dataset import CLASSIFICATION
from comity.errors import InvalidValue, NonFiniteValue, TrainingDiverged
from comity.tasks.classification import CrossEntropy
from comity.tasks.objective import Outputs
from comity.training.evaluation import Evaluator


def try_out(evaluator: Evaluator, data: Dataset, some: Int[Tensor, " batch"], step: Callable[[], None] | None) -> None:
    """See `Supervised.try_out`.

    Args:
        evaluator: Evaluates the model, which has the weights that the session begins with afterwards.
        data: Samples to try it on.
        some: Which of them.
        step: Makes a step of the training; None where nothing is trained.
    """
    network = evaluator.network
    network.load(network.initial_state)
    _require_answers(evaluator, data, some)
    if step is not None:
        if not network.parameters:
            raise InvalidValue(
                "nothing of the model is trained",
                expected="parameters that want gradients",
                received="none",
                action="correct session.model.trainable, or the factory",
            )
        step()
        if not any(each.grad is not None for each in network.trained):
            raise InvalidValue("a step moves nothing of the model", expected="gradients", received="none")
    _require_crossing(evaluator, data, some)
    network.load(network.initial_state)


def blank(like: Dataset, device: torch.device) -> Dataset:
    """Two samples without anything on them, for a party that has none."""
    return Dataset(torch.zeros(2, *like.input_shape, device=device), torch.zeros(2).long(), 1.0, like.classes)


def _require_answers(evaluator: Evaluator, data: Dataset, some: Int[Tensor, " batch"]) -> None:
    """Checks that the model answers as its task wants."""
    first = evaluator.outputs(evaluator.network.on_device(evaluator.network.initial_state), data, some)
    wanted = [len(some), data.classes]
    if data.task != CLASSIFICATION:
        evaluator.objective.loss(first, data.targets_of(some), "none")
    elif isinstance(evaluator.objective, CrossEntropy) and (
        not isinstance(first, Tensor) or list(first.shape) != wanted or not first.is_floating_point()
    ):
        raise InvalidValue(
            "the model says something else than a score for each class",
            expected=f"floats {wanted} for {len(some)} samples",
            received=f"{first.dtype} {list(first.shape)}" if isinstance(first, Tensor) else "a dict",
            action="give its last layer as many outputs as there are classes, and no softmax",
        )


def _require_crossing(evaluator: Evaluator, data: Dataset, some: Int[Tensor, " batch"]) -> None:
    """Checks that the model, as it is now, can be sent, and answers alike when it has come."""
    network = evaluator.network
    state = {name: each.cpu() for name, each in network.state().items()}
    try:
        blob = network.layout.pack(state)
        network.layout.verify(blob)
    except NonFiniteValue as error:
        raise TrainingDiverged(
            "one step makes weights that are not finite",
            expected="finite weights",
            received=str(error),
            action="lower the session's learning_rate",
        ) from error
    crossed = network.on_device(network.layout.view(blob.data))
    answers = [evaluator.outputs(each, data, some) for each in (network.on_device(state), crossed)]
    if not _equal(*answers):
        raise InvalidValue(
            "the model answers otherwise after it has crossed",
            expected="answers that follow from its state dict and the inputs alone",
            received="others",
            action="keep what it remembers in buffers, or not at all",
        )
    if network.layout.pack({name: each.cpu() for name, each in crossed.items()}) != blob:
        raise InvalidValue(
            "the model changes its weights when it is evaluated",
            expected="weights that training alone changes",
            received="others after an evaluation",
            action="keep what changes in buffers",
        )


def _equal(one: Outputs, other: Outputs) -> bool:
    """Whether two answers are the same to the last bit; one that is no number, as after too large a step, is like another."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and _alike(one, other)
    return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all())
