"""What a node decides for itself in peer study: `[protocols.peer-study]` of its configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A client's own settings of peer study: of the simulated oracle, which says the labels that the pool comes with.

    Attributes:
        noise: The share of samples that it takes for another class, 0 to 1.
        superclasses: The classes that it mistakes for each other, each class in one; all of them
            where nothing is said.
    """

    model_config = ConfigDict(extra="forbid")

    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    superclasses: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
