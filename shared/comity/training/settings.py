"""How a party makes its steps: `[training]` of its configuration; importing it imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from comity.errors import InvalidValue

Precision = Literal["float32", "bfloat16", "float16"]
"""What passes compute in; weights stay as the contract has them."""
Hypergradient = Literal["one-step", "neumann", "conjugate-gradient"]
"""What stands for the inverse Hessian of the training loss, where a weighting method learns: nothing, three terms or so of
its series, or a solution by conjugate gradients."""
Option = bool | int | float | str | list[float]


class WeightingSettings(BaseModel):
    """How the gradients of a task's heads become one, for tasks of several heads; others have one loss, and nothing to weigh.

    Attributes:
        method: Its name, for example `auxinash`.
        main: The head that the others are to help; empty for the task's first.
        options: Of the method.
        every: Steps between two updates of what the method learns from the main head on another batch; 0 for none.
        norm: Length that the gradient of what heads share is brought to; left out, it is what the method makes of it.
        hypergradient: How it is worked out what a weight does to the main head's loss.
        terms: Terms of a Neumann series, or steps of conjugate gradients.
        rate: Step of a Neumann series, below 2 over the greatest eigenvalue of the Hessian.
        damping: Added to the Hessian for conjugate gradients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    main: str = ""
    options: dict[str, Option] = {}
    every: Annotated[int, Field(ge=0)] = 25
    norm: Annotated[float, Field(gt=0)] | None = None
    hypergradient: Hypergradient = "one-step"
    terms: Annotated[int, Field(ge=1, le=1000)] = 3
    rate: Annotated[float, Field(gt=0)] = 0.1
    damping: Annotated[float, Field(ge=0)] = 1e-3


class TrainingSettings(BaseModel):
    """How a party makes the steps of its local trainings.

    Attributes:
        precision: What passes compute in. With `float16` losses are scaled, and steps with infinite gradients left out.
        micro_batch: Most samples that go through the model at a time; gradients of a batch add up. Left out, all.
        weighting: How several heads share what they have in common; left out, by the sum of their losses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision = "float32"
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    weighting: WeightingSettings | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a step is one pass over a batch, of one loss."""
        return self.precision == "float32" and self.micro_batch is None and self.weighting is None


def require_together(training: TrainingSettings, *, is_private: bool, is_guarded: bool) -> None:
    """Checks that steps can be made so.

    Raises:
        InvalidValue: They cannot.
    """
    if is_private and not training.is_plain:
        raise InvalidValue(
            "noise covers one loss of each sample, in one pass",
            expected="a [training] table without precision, micro_batch and weighting",
            received=", ".join(sorted(training.model_dump(exclude_defaults=True))),
            action="leave them out, or train without differential privacy",
        )
    if is_guarded and training.weighting is not None and training.micro_batch is not None:
        raise InvalidValue(
            "a leak guard sees a batch whose heads are weighed as a whole",
            expected="training.weighting or training.micro_batch",
            received="both",
            action="leave micro_batch out",
        )
