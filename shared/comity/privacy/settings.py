"""How a node looks after the samples that it trains on: `[privacy]` of its configuration; importing it imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Preset = Literal["guarded", "dp", "public"]
"""What protects samples: the leak guard; the guard and an agreed ε; nothing, since anybody may read them."""


class PrivacySettings(BaseModel):
    """What leaves a node of what it trains.

    Attributes:
        preset: `guarded`: what single samples show of a model stays here. `dp`: besides, no session trains without
            differential privacy. `public`: data that anybody may read; nothing is held back.
        min_distinct: Fewest distinct samples behind a row of a model since it last left.
        width_factor: How many distinct samples there have to be for each unit of the widest layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset = "public"
    min_distinct: Annotated[int, Field(ge=1)] = 64
    width_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0

    @property
    def guards(self) -> bool:
        """Whether there is a leak guard."""
        return self.preset != "public"
