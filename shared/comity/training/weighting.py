"""Training several tasks on one trunk: their gradients become one, by a weighting method.

Methods are named by the entry-point group `comity.weightings`. The first task is the main one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter

from comity.errors import InvalidValue, NonFiniteValue
from comity.suggestions import did_you_mean

GROUP = "comity.weightings"


class WeightingMethod(Protocol):
    """How several tasks' gradients become one."""

    needs_gram: bool
    """Whether weights depend on the gradients; else one backward pass of the weighted sum is all that is made."""

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

    def state_dict(self) -> dict[str, Any]:
        """What has to outlive the process, for checkpoints."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
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
        InvalidValue: There is none of that name.
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
    made: WeightingMethod = found[name].load()(tasks, **options)
    return made


class WeightedGradients:
    """Gives a trunk, and the heads on it, the gradients of a step: one backward pass a task, or one for all.

    Between `backward` and `combine` it holds a gradient of the trunk for each task and the one that is made of them.
    Gradients of several micro-batches add up if `backward` is called for each. With a `GradScaler`, pass it: what is put into
    `.grad` is scaled as it expects, and a step with infinite gradients is skipped by it as ever.

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
        self._last_rows: Tensor | None = None

    @property
    def _scale(self) -> float:
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def backward(self, losses: Sequence[Tensor]) -> None:
        """Adds the gradients of a batch.

        Args:
            losses: One of each task, on one graph.

        Raises:
            InvalidValue: They are not as many as there are tasks.
        """
        if len(losses) != len(self._heads):
            raise InvalidValue("losses", expected=f"one for each of {len(self._heads)} tasks", received=len(losses))
        values = torch.stack([each.detach() for each in losses]).double()
        self._losses = values if self._losses is None else self._losses + values
        if not self.method.needs_gram:
            self._backward_of_sum(losses, values)
            return
        if self._rows is None:
            total = sum(each.numel() for each in self._trunk)
            # Half precision is for the passes: products are of float32.
            self._rows = torch.zeros(len(losses), total, device=self._trunk[0].device)
        last = len(losses) - 1
        for task, loss in enumerate(losses):
            own = self._heads[task]
            scaled = loss if self._scaler is None else self._scaler.scale(loss)
            found = torch.autograd.grad(scaled, [*self._trunk, *own], retain_graph=task < last, allow_unused=True)
            at, row = 0, self._rows[task]
            for parameter, gradient in zip(self._trunk, found, strict=False):
                if gradient is not None:
                    row[at : at + parameter.numel()].add_(gradient.flatten())
                at += parameter.numel()
            self._add_to_head(task, found[len(self._trunk) :])

    def _backward_of_sum(self, losses: Sequence[Tensor], values: Tensor) -> None:
        self._weights = self.method.weights(values, None)
        weights = self._weights.to(losses[0])
        total = (weights * torch.stack([*losses])).sum()
        (total if self._scaler is None else self._scaler.scale(total)).backward()

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
        gram = (rows @ rows.T).double() / self._scale**2
        if not bool(gram.isfinite().all()):
            if self._scaler is None:
                self._forget()
                raise NonFiniteValue(
                    "a task's gradient is not finite", expected="finite numbers", received="NaN or inf"
                )
            # The scaler sees it, and skips the step.
            self._put(rows.sum(0), [1.0] * len(losses))
            self._forget()
            return torch.zeros(len(losses), dtype=torch.float64)
        weights = self.method.weights(losses, gram)
        factor = 1.0
        if self._norm is not None:
            factor = self._norm / float((weights @ gram @ weights).clamp_min(1e-60).sqrt())
        mean = float(weights.abs().mean()) or 1.0
        self._put((factor * weights).to(rows) @ rows, (weights / mean).tolist())
        self._gram, self._last_rows = gram, rows / self._scale
        self._forget()
        return weights

    @torch.no_grad()
    def update(self, main_gradient: Sequence[Tensor]) -> None:
        """Has the method learn from the main task's gradient on another batch.

        Args:
            main_gradient: By the parameters of the trunk, unscaled.

        Raises:
            InvalidValue: No step was made.
        """
        if self._last_rows is None or self._gram is None:
            raise InvalidValue("there is nothing to learn from", expected="combine before update", received="none")
        flat = torch.cat([each.flatten() for each in main_gradient])
        self.method.update(self._gram, (self._last_rows @ flat.to(self._last_rows)).double(), float(flat.norm()))

    def _put(self, flat: Tensor, shares: Sequence[float]) -> None:
        at = 0
        for parameter in self._trunk:
            part = flat[at : at + parameter.numel()].view_as(parameter)
            parameter.grad = part.to(parameter.dtype).clone()
            at += parameter.numel()
        for own, gradients, share in zip(self._heads, self._head_rows, shares, strict=True):
            for parameter, gradient in zip(own, gradients or [], strict=True):
                parameter.grad = gradient * share

    def _forget(self) -> None:
        self._rows = None
        self._head_rows = [None] * len(self._heads)


def every(steps: int, closure: Callable[[], Sequence[Tensor]]) -> Callable[[int, WeightedGradients], None]:
    """A rule that has a method learn every so many steps; see `WeightedGradients.update`.

    Args:
        steps: Between two updates.
        closure: The main task's gradient on another batch.
    """

    def learn(step: int, gradients: WeightedGradients) -> None:
        if step % steps == steps - 1:
            gradients.update(closure())

    return learn
