"""What a node decides for itself in Nash bargaining: `[protocols.nash-bargaining]` of its configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Head = Literal["auto", "own"]
"""Whose head a provider's samples go through: the learner's, where they are for its task; or one that stays at home."""


class Settings(BaseModel):
    """A node's own settings of Nash bargaining.

    Attributes:
        wait_s: As a learner, how long to try to reach a provider that is away before a round goes on without it, in seconds.
        head: As a provider, whose head its samples go through. With the learner's it can help, or harm, all of the model;
            with one of its own, the trunk alone.
    """

    model_config = ConfigDict(extra="forbid")

    wait_s: Annotated[float, Field(gt=0, le=1e7)] = 60.0
    head: Head = "auto"
