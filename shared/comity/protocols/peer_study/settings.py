"""What a node decides for itself in peer study: `[protocols.peer-study]` of its configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Oracle = Literal["people", "simulated"]
"""Who labels: annotators, whom the session waits for; or, in experiments, the labels that the pool comes with."""


class Settings(BaseModel):
    """A node's own settings of peer study.

    Attributes:
        oracle: As a client, who labels the samples that were chosen.
        noise: Of a simulated oracle, the share of samples that it takes for another class, 0 to 1.
        superclasses: Of a simulated oracle, the classes that it mistakes for each other, each class in one; all of them
            where nothing is said.
    """

    model_config = ConfigDict(extra="forbid")

    oracle: Oracle = "people"
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    superclasses: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
