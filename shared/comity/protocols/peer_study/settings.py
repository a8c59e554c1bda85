"""What a node decides for itself in peer study: `[protocols.peer-study]` of its configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A client's own settings of peer study: who labels, and who releases samples.

    Attributes:
        labels: `people`, for whom the session waits; or `pool`: a simulated oracle says the labels that the pool comes with.
            Left out, people are asked where the pool comes without labels.
        guidelines: What people are told about the classes.
        noise: The share of samples that the oracle takes for another class, 0 to 1.
        superclasses: The classes that it mistakes for each other, each class in one; all of them
            where nothing is said.
        consent: Who releases samples, in sessions in which they leave: `ask`, an operator, sample by sample, for whom the
            session waits; or `standing`: every sample that is labelled and not protected, by this setting.
    """

    model_config = ConfigDict(extra="forbid")

    labels: Literal["people", "pool"] | None = None
    guidelines: Annotated[str, Field(max_length=100_000)] = ""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    superclasses: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
    consent: Literal["ask", "standing"] = "ask"
