"""The steps of a local training: in parts, in less precision, and with several heads whose gradients a method weighs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from comity.errors import InvalidValue, NonFiniteValue, TrainingDiverged
from comity.privacy.leak_guard import LeakGuard
from comity.tasks.objective import Composite, Objective, Outputs, Targets
from comity.tensors import State
from comity.training.hypergradients import conjugate_gradient, hessian_product, neumann
from comity.training.master_weights import is_half
from comity.training.network import densify
from comity.training.settings import TrainingSettings, WeightingSettings
from comity.training.weighting import WeightedGradients, shared_and_own, weighting

Answers = Callable[[Tensor, str], tuple[Outputs, Targets]]
"""What the model says of some samples, and what is to be said; what it draws is for a purpose."""

_KEPT = "steps."
_SCALE, _STEADY = f"{_KEPT}scale", f"{_KEPT}steady"
_METHOD = f"{_KEPT}weighting."
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Steps:
    """Makes the steps of one training.

    What it learns on the way, the powers of heads and the scale of losses, is of that training, as an optimiser's state is.

    Args:
        parameters: What is trained.
        objective: What it is trained for.
        settings: How.
        device: Where the model lives.
        kept: What `kept` gave, to go on from there; nothing for a new training.

    Raises:
        InvalidValue: The settings do not go with the task or the model.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        objective: Objective,
        settings: TrainingSettings,
        device: torch.device,
        kept: State | None = None,
    ) -> None:
        self._parameters = parameters
        self._objective = objective
        self._settings = settings
        self._device = device
        dtype = _DTYPES.get(settings.precision)
        if dtype is not None and is_half(parameters):
            raise InvalidValue(
                "the model's weights are in half precision already",
                expected='training.precision = "float32"',
                received=settings.precision,
                action="leave training.precision out",
            )
        self._dtype = dtype
        self._scaler = torch.amp.GradScaler(device.type) if dtype is torch.float16 else None
        how = settings.weighting
        self._weights = (
            Weights(how, objective, parameters, self._scaler)
            if how is not None and isinstance(objective, Composite)
            else None
        )
        if kept:
            self._restore(kept)

    def kept(self) -> dict[str, Tensor]:
        """What a training needs to go on from where it is."""
        found: dict[str, Tensor] = {}
        if self._scaler is not None:
            state = self._scaler.state_dict()
            found[_SCALE] = torch.tensor(state["scale"], dtype=torch.float64)
            found[_STEADY] = torch.tensor(state["_growth_tracker"], dtype=torch.int64)
        if self._weights is not None:
            found |= {f"{_METHOD}{name}": each for name, each in self._weights.method.state_dict().items()}
        return found

    def _restore(self, kept: State) -> None:
        if self._scaler is not None and _SCALE in kept:
            now = {"scale": float(kept[_SCALE]), "_growth_tracker": int(kept[_STEADY])}
            self._scaler.load_state_dict(self._scaler.state_dict() | now)
        if self._weights is not None:
            own = {name.removeprefix(_METHOD): each for name, each in kept.items() if name.startswith(_METHOD)}
            self._weights.method.load_state_dict(own)

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        samples: Tensor,
        answers: Answers,
        guard: LeakGuard | None,
    ) -> None:
        """Makes a step.

        Args:
            optimizer: Of the parameters.
            samples: The batch.
            answers: What the model says of samples.
            guard: Looks on; None for none.

        Raises:
            TrainingDiverged: A head's gradient is not finite, and no scale of losses is to blame.
        """
        optimizer.zero_grad(set_to_none=True)
        size = self._settings.micro_batch or len(samples)
        parts = samples.split(max(size, 1))
        for at, part in enumerate(parts):
            with nullcontext() if guard is None else guard.batch(part):
                with self._cast():
                    made = answers(part, "dropout" if len(parts) == 1 else f"dropout, part {at}")
                    losses = self._losses(*made)
                self._backward(losses, 1.0 if len(parts) == 1 else len(part) / len(samples), guard)
        if self._weights is not None and guard is None:
            self._weights.combine()
        densify(self._parameters)
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    def learns(self, iteration: int) -> bool:
        """Whether a method of weighting learns after an iteration."""
        how = self._settings.weighting
        if self._weights is None or how is None or not how.every or not self._weights.method.learns:
            return False
        return not (iteration + 1) % how.every

    def learn(self, judging: Tensor, training: Tensor, answers: Answers) -> None:
        """Has the method of weighting learn from the main head's loss.

        Args:
            judging: Samples that it is taken on.
            training: Those of the step that was made last.
            answers: What the model says of samples.
        """
        if self._weights is None or not isinstance(self._objective, Composite):
            return
        objective = self._objective

        def losses(samples: Tensor, purpose: str) -> dict[str, Tensor]:
            return objective.losses(*answers(samples, purpose))

        self._weights.learn(lambda: losses(judging, "dropout, judging"), lambda: losses(training, "dropout"))

    def _losses(self, outputs: Outputs, targets: Targets) -> list[Tensor]:
        """One loss, or the heads' where they are weighed."""
        if self._weights is None or not isinstance(self._objective, Composite):
            return [self._objective.loss(outputs, targets, "mean")]
        return self._weights.ordered(self._objective.losses(outputs, targets))

    def _backward(self, losses: list[Tensor], share: float, guard: LeakGuard | None) -> None:
        if self._weights is None:
            loss = losses[0] if share == 1.0 else share * losses[0]
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        elif guard is None:
            self._weights.backward(losses, share=share)
        else:
            with guard.paused():
                self._weights.backward(losses, again=True)
                weights = self._weights.combine()
            # It sees one pass, of what the step is made of.
            total = (weights.to(losses[0]) * torch.stack(losses)).sum()
            torch.autograd.grad(total, self._parameters, allow_unused=True)

    def _cast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._dtype is None else torch.autocast(self._device.type, self._dtype)


class Weights:
    """The heads of a task, whose gradients a method weighs.

    Args:
        settings: How.
        objective: The task's, of several heads.
        parameters: What is trained.
        scaler: Scales losses; None for none.

    Attributes:
        method: The method.

    Raises:
        InvalidValue: There is no such head, or no such method, or the options are not the method's.
    """

    def __init__(
        self,
        settings: WeightingSettings,
        objective: Composite,
        parameters: list[nn.Parameter],
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        main = settings.main or objective.heads[0]
        if main not in objective.heads:
            raise InvalidValue("training.weighting.main", expected=", ".join(objective.heads), received=main)
        self._heads = (main, *(each for each in objective.heads if each != main))
        self._settings = settings
        self._parameters = parameters
        self._scaler = scaler
        self.method = weighting(settings.method, len(self._heads), **settings.options)
        self._gradients: WeightedGradients | None = None
        self._trunk: list[nn.Parameter] = []
        self._last: Tensor | None = None

    def ordered(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """The heads' losses, the main one's first."""
        return [losses[name] for name in self._heads]

    def backward(self, losses: list[Tensor], *, share: float = 1.0, again: bool = False) -> None:
        """Adds the gradients of some samples; see `WeightedGradients.backward`."""
        if self._gradients is None:
            self._trunk, own = shared_and_own(losses, self._parameters)
            self._gradients = WeightedGradients(
                self.method, self._trunk, own, scaler=self._scaler, norm=self._settings.norm
            )
        self._gradients.backward(losses, share=share, again=again)

    def combine(self) -> Tensor:
        """Makes one gradient of what was added; returns the weights.

        Raises:
            TrainingDiverged: A gradient is not finite, and nothing was scaled.
        """
        if self._gradients is None:
            raise InvalidValue("nothing to combine", expected="backward before combine", received="none")
        try:
            self._last = self._gradients.combine()
        except NonFiniteValue as error:
            raise TrainingDiverged(
                "a head's gradient is not finite",
                expected="finite gradients",
                received=str(error),
                action="lower the session's learning_rate",
            ) from error
        return self._last

    def learn(self, judging: Callable[[], Mapping[str, Tensor]], training: Callable[[], Mapping[str, Tensor]]) -> None:
        """Has the method learn from the main head on another batch; nothing before the first step, or of one that failed.

        Args:
            judging: The heads' losses on the samples that they are judged by.
            training: Those on the samples of the last step.
        """
        if self._gradients is None or self._last is None or not self._gradients.has_rows:
            return
        loss = judging()[self._heads[0]]
        found = torch.autograd.grad(loss, self._trunk, allow_unused=True, materialize_grads=True)
        vector = torch.cat([each.flatten() for each in found])
        if not bool(vector.isfinite().all()):
            return
        how = self._settings
        if how.hypergradient != "one-step":
            weighed = (self._last.to(vector) * torch.stack(self.ordered(training()))).sum()
            product = hessian_product(weighed, self._trunk)
            vector = (
                neumann(product, vector, terms=how.terms, rate=how.rate)
                if how.hypergradient == "neumann"
                else conjugate_gradient(product, vector, steps=how.terms, damping=how.damping)
            )
        self._gradients.update([vector])


def apart(kept: State) -> tuple[State, State]:
    """What steps keep of a snapshot's tensors, and the rest."""
    own = {name: tensor for name, tensor in kept.items() if name.startswith(_KEPT)}
    return own, {name: tensor for name, tensor in kept.items() if not name.startswith(_KEPT)}
