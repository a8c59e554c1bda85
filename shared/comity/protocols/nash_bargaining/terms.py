"""What a session of Nash bargaining agrees on."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from comity.privacy.terms import PrivacyTerms
from comity.protocols.nash_bargaining.choices import Schedule, Unfit
from comity.session.stopping import StoppingTerms
from comity.training.terms import OptimizerSpec, TrainingTerms


class NashBargainingTerms(TrainingTerms, StoppingTerms):
    """The protocol's part of a contract.

    Attributes:
        local_steps: s, steps of local SGD whose gradients are summed to what a party brings to a round. 1 is the paper's.
        local_learning_rate: Of these steps, above 0.
        learning_rate: Length of the learner's step in the first round: the bargained update has length 1.
        schedule: How that changes over the rounds.
        ridge: ε of K + ε·diag(K), which bounds the weights where gradients are nearly opposites.
        main_power: Bargaining power of the learner, above 0, below 1. It is fixed: on its own data, its own gradient
            always looks best.
        power_every: Rounds between two updates of the providers' powers; 0 keeps them equal.
        power_rate: η of an update, p·exp(−η·h): 0 or more.
        power_floor: The least power of a provider.
        clip_norm: Greatest length of what a provider sends. Lengths do not change the bargained update.
        unfit: What follows where a provider's gradient cannot be used.
        privacy: The noise of every party's training; None for none.
        stop_when_stalled: See `StoppingTerms`, which the learner decides by.
        target: See there.
        target_metric: See there.
    """

    batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 64
    local_steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    local_learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 0.1
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 0.1
    schedule: Schedule = "cosine"
    ridge: Annotated[float, Field(ge=0, le=1)] = 1e-2
    main_power: Annotated[float, Field(gt=0, lt=1)] = 0.25
    power_every: Annotated[int, Field(ge=0, le=10_000)] = 5
    power_rate: Annotated[float, Field(ge=0, le=1e6)] = 0.5
    power_floor: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    clip_norm: Annotated[float, Field(gt=0, le=1e30)] = 1.0
    unfit: Unfit = "leave_out"
    privacy: PrivacyTerms | None = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if self.power_floor >= 1 - self.main_power:
            raise ValueError(f"power_floor is below what main_power leaves, which is {1 - self.main_power:g}")
        return self

    @property
    def local_optimizer(self) -> OptimizerSpec:
        """The optimiser of the local steps."""
        return OptimizerSpec("sgd", self.local_learning_rate)

    def step_length(self, round: int, rounds: int) -> float:
        """Length of the learner's step.

        Args:
            round: The round, from 1.
            rounds: Rounds of the session.
        """
        share = 1.0 if self.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * (round - 1) / rounds))
        return self.learning_rate * share
