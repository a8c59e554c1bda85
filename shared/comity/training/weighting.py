"""Training several tasks on one trunk: their gradients become one, by a weighting method.

Methods are named by the entry-point group `comity.weightings`. The first task is the main one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter

from comity.errors import InvalidValue, NonFiniteValue
from comity.suggestions import did_you_mean

GROUP = "comity.weightings"
_COLUMNS = 1 << 16
"""Parameters whose products are summed at a time, so that no whole copy in float64 is needed."""


class WeightingMethod(Protocol):
    """How several tasks' gradients become one."""

    needs_gram: bool
    """Whether weights depend on the gradients; else one backward pass of the weighted sum is all that is made."""
    learns: bool
    """Whether `update` does anything."""

    def weights(
        self, losses: Float[Tensor, " tasks"], gram: Float[Tensor, "tasks tasks"] | None
    ) -> Float[Tensor, " tasks"]:
        """The weights of the tasks' gradients, float64.

        Args:
            losses: Of the batch.
            gram: Inner products of the gradients on the trunk, float64; None where the method needs none.
        """

    def update(self, gram: Float[Tensor, "tasks tasks"], main: Float[Tensor, " tasks"], main_length: float) -> None:
        """Learns from the main task's gradient on another batch; nothing where the method learns nothing of it.

        Args:
            gram: Of the step that was made last.
            main: Inner products of that step's gradients with it.
            main_length: Its length.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """What has to outlive the process, for checkpoints."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from there."""


def weighting_names() -> list[str]:
    """The methods of this installation."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def weighting(method: str, tasks: int, **options: Any) -> WeightingMethod:
    """A weighting method by its name.

    Args:
        method: The name, for example `auxinash`.
        tasks: How many tasks there are, the main one first.
        options: Of the method.

    Raises:
        InvalidValue: There is none of that name, or it has no such option.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    name = method.replace("_", "-")
    if name not in found:
        raise InvalidValue(
            "no such weighting method",
            expected=", ".join(sorted(found)),
            received=method,
            action=did_you_mean(method, found, "comity.training.weighting.weighting_names lists them"),
        )
    kind = found[name].load()
    known = [*inspect.signature(kind).parameters][1:]
    if unknown := next((each for each in options if each not in known), None):
        raise InvalidValue(
            f"the weighting method {name} has no such option",
            expected=", ".join(known) or "none",
            received=unknown,
            action=did_you_mean(unknown, known, "leave it out"),
        )
    made: WeightingMethod = kind(tasks, **options)
    return made


def shared_and_own(
    losses: Sequence[Tensor], parameters: Sequence[Parameter]
) -> tuple[list[Parameter], list[list[Parameter]]]:
    """What tasks share of a model, and each task's own part of it.

    Args:
        losses: One of each task, on one graph, which is kept.
        parameters: The model's.

    Raises:
        InvalidValue: They share nothing.
    """
    uses: list[list[int]] = [[] for _ in parameters]
    for task, loss in enumerate(losses):
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for users, gradient in zip(uses, found, strict=True):
            if gradient is not None:
                users.append(task)
    trunk = [each for each, users in zip(parameters, uses, strict=True) if len(users) > 1]
    own = [[each for each, users in zip(parameters, uses, strict=True) if users == [at]] for at in range(len(losses))]
    if not trunk:
        raise InvalidValue(
            "the tasks share no parameters",
            expected="a trunk that two tasks or more go through",
            received=f"{len(losses)} models beside each other",
            action="leave training.weighting out, or share layers",
        )
    return trunk, own


class WeightedGradients:
    """Gives a trunk, and the heads on it, the gradients of a step: one backward pass a task, or one for all.

    It holds a gradient of the trunk for each task, until the next step; `combine` makes one more of them, which the
    parameters' `.grad` are views of. Gradients of several micro-batches add up if `backward` is called for each. With a
    `GradScaler`, pass it: what is put into `.grad` is scaled as it expects, and a step with infinite gradients is skipped by
    it as ever.

    Args:
        method: How they become one.
        trunk: Parameters that all tasks share.
        heads: Parameters of each task's own head, in the order of the tasks.
        scaler: Scales losses, with mixed precision.
        norm: Length that the trunk's gradient is brought to; None for what the method makes of it.
    """

    def __init__(
        self,
        method: WeightingMethod,
        trunk: Sequence[Parameter],
        heads: Sequence[Sequence[Parameter]],
        *,
        scaler: torch.amp.GradScaler | None = None,
        norm: float | None = None,
    ) -> None:
        self.method = method
        self._trunk = [*trunk]
        self._heads = [[*each] for each in heads]
        self._scaler = scaler
        self._norm = norm
        self._rows: Tensor | None = None
        self._head_rows: list[list[Tensor] | None] = [None] * len(self._heads)
        self._losses: Tensor | None = None
        self._weights: Tensor | None = None
        self._gram: Tensor | None = None
        self._scale = 1.0

    @property
    def has_rows(self) -> bool:
        """Whether a step was made that a method can learn from."""
        return self._gram is not None

    def backward(self, losses: Sequence[Tensor], *, share: float = 1.0, again: bool = False) -> None:
        """Adds the gradients of a batch.

        Args:
            losses: One of each task, on one graph.
            share: What they count: of several micro-batches, each one's part of the batch. A method that looks at losses
                alone decides by those of the first.
            again: Whether the graph is kept, for another pass.

        Raises:
            InvalidValue: They are not as many as there are tasks.
        """
        if len(losses) != len(self._heads):
            raise InvalidValue("losses", expected=f"one for each of {len(self._heads)} tasks", received=len(losses))
        values = torch.stack([each.detach() for each in losses]).double()
        is_first = self._losses is None
        self._losses = share * values if self._losses is None else self._losses + share * values
        if not self.method.needs_gram:
            self._backward_of_sum(losses, values, share, again=again)
            return
        if is_first:
            self._scale = 1.0 if self._scaler is None else float(self._scaler.get_scale())
            self._gram = None
        last = len(losses) - 1
        for task, loss in enumerate(losses):
            own, scaled = self._heads[task], loss if share == 1.0 else share * loss
            if self._scaler is not None:
                scaled = self._scaler.scale(scaled)
            found = torch.autograd.grad(
                scaled, [*self._trunk, *own], retain_graph=again or task < last, allow_unused=True
            )
            self._add_to_row(task, found[: len(self._trunk)], is_first=is_first)
            self._add_to_head(task, found[len(self._trunk) :])
            # Not kept while the next pass makes its own.
            del found

    def _backward_of_sum(self, losses: Sequence[Tensor], values: Tensor, share: float, *, again: bool) -> None:
        if self._weights is None:
            self._weights = self.method.weights(values, None)
        total = (share * self._weights.to(losses[0]) * torch.stack([*losses])).sum()
        (total if self._scaler is None else self._scaler.scale(total)).backward(retain_graph=again)

    def _add_to_row(self, task: int, gradients: Sequence[Tensor | None], *, is_first: bool) -> None:
        if self._rows is None:
            total = sum(each.numel() for each in self._trunk)
            # Half precision is for the passes: products are of float32.
            self._rows = torch.empty(len(self._heads), total, device=self._trunk[0].device)
        row, at = self._rows[task], 0
        for parameter, gradient in zip(self._trunk, gradients, strict=True):
            part = row[at : at + parameter.numel()].view(parameter.shape)
            at += parameter.numel()
            if gradient is None:
                if is_first:
                    part.zero_()
            elif is_first:
                part.copy_(gradient)
            else:
                part.add_(gradient)

    def _add_to_head(self, task: int, gradients: Sequence[Tensor | None]) -> None:
        pairs = zip(self._heads[task], gradients, strict=True)
        new = [torch.zeros_like(one) if gradient is None else gradient for one, gradient in pairs]
        before = self._head_rows[task]
        self._head_rows[task] = new if before is None else [a + b for a, b in zip(before, new, strict=True)]

    @torch.no_grad()
    def combine(self) -> Float[Tensor, " tasks"]:
        """Makes one gradient of what was added, and puts it into `.grad`; returns the weights.

        A head gets its own task's gradient, weighted as the task is beside the mean of all: the weights of a bargaining game grow
        without bound near a Pareto-stationary point, and a head has nobody to bargain with.

        Raises:
            InvalidValue: Nothing was added.
            NonFiniteValue: A gradient is NaN or infinite, and there is no scaler that would skip the step.
        """
        losses, rows, weights = self._losses, self._rows, self._weights
        self._losses = self._weights = None
        if weights is not None:
            # Their gradients are there already.
            return weights
        if losses is None or rows is None:
            raise InvalidValue("nothing to combine", expected="backward before combine", received="none")
        gram = _products(rows) / self._scale**2
        if not bool(gram.isfinite().all()):
            if self._scaler is None:
                self._head_rows = [None] * len(self._heads)
                raise NonFiniteValue(
                    "a task's gradient is not finite", expected="finite numbers", received="NaN or inf"
                )
            # The scaler sees it, and skips the step.
            self._put(rows.sum(0), [1.0] * len(losses))
            return torch.zeros(len(losses), dtype=torch.float64)
        weights = self.method.weights(losses, gram)
        factor = 1.0
        if self._norm is not None:
            factor = self._norm / float((weights @ gram @ weights).clamp_min(1e-60).sqrt())
        mean = float(weights.abs().mean()) or 1.0
        self._put((factor * weights).to(rows) @ rows, (weights / mean).tolist())
        self._gram = gram
        return weights

    @torch.no_grad()
    def update(self, main_gradient: Sequence[Tensor]) -> None:
        """Has the method learn from the main task's gradient on another batch, before the next step begins.

        Args:
            main_gradient: By the parameters of the trunk, unscaled.

        Raises:
            InvalidValue: No step was made.
        """
        if self._rows is None or self._gram is None:
            raise InvalidValue("there is nothing to learn from", expected="combine before update", received="none")
        flat = [each.flatten().to(self._rows) for each in main_gradient]
        parts = self._rows.split([len(each) for each in flat], dim=1)
        products = sum(part @ each for part, each in zip(parts, flat, strict=True))
        length = math.hypot(*(float(each.norm()) for each in flat))
        self.method.update(self._gram, torch.as_tensor(products).double() / self._scale, length)

    def _put(self, flat: Tensor, shares: Sequence[float]) -> None:
        at = 0
        for parameter in self._trunk:
            part = flat[at : at + parameter.numel()].view_as(parameter)
            parameter.grad = part.to(parameter.dtype)
            at += parameter.numel()
        for own, gradients, share in zip(self._heads, self._head_rows, shares, strict=True):
            for parameter, gradient in zip(own, gradients or [], strict=True):
                parameter.grad = gradient * share
        self._head_rows = [None] * len(self._heads)


def _products(rows: Float[Tensor, "tasks parameters"]) -> Float[Tensor, "tasks tasks"]:
    """Inner products, summed in float64: in float32 those of parallel gradients need not be of any."""
    parts = (each.double() for each in rows.split(_COLUMNS, dim=1))
    return sum((each @ each.T for each in parts), start=rows.new_zeros(len(rows), len(rows), dtype=torch.float64))
