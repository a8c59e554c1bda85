"""How a node looks after the samples that it trains on: `[privacy]` of its configuration; importing it imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Preset = Literal["guarded", "dp", "public"]
"""What protects samples: the leak guard; the guard and an agreed ε; nothing, since they are public."""


OptimizerName = Literal["adam", "sgd"]
"""Optimisers that there are; here, below the trainings, since a limit on one that there is not would hold for none."""


class PrivacySettings(BaseModel):
    """What leaves a node of what it trains.

    Attributes:
        preset: `guarded`: what single samples show of a model stays here. `dp`: besides, no session trains without
            differential privacy. `public`: data that need no protection; nothing is held back.
        min_distinct: Fewest distinct samples behind a row of a model since it last left; batches of a part of the samples
            leave out as many.
        max_batch_share: Greatest batch, as a share of the samples. Rounds, and sessions, whose batches are all samples or
            nearly differ by single ones, where the weights that they begin with do.
        width_factor: How many distinct samples there have to be, between two sends, for each unit of a model's widest fully
            connected layer with more than 16 inputs.
        models: The models that may be trained, and outputs of their widest such layer; empty for all.
        max_learning_rate: Greatest learning rate, by optimiser; one that is left out has no limit.
        max_iterations: Most steps of one training.
        min_period: Fewest steps between two sends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset = "guarded"
    min_distinct: Annotated[int, Field(ge=1)] = 64
    max_batch_share: Annotated[float, Field(gt=0, le=1)] = 0.75
    width_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    models: dict[str, Annotated[int, Field(ge=1)]] = {}
    max_learning_rate: dict[OptimizerName, Annotated[float, Field(gt=0)]] = {"sgd": 1.0, "adam": 0.01}
    max_iterations: Annotated[int, Field(ge=1)] = 100_000
    min_period: Annotated[int, Field(ge=1)] = 1

    @property
    def guards(self) -> bool:
        """Whether there is a leak guard."""
        return self.preset != "public"
