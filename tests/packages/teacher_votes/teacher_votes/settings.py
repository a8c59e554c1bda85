"""A party's own settings: `[protocols.teacher-votes]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from comity.protocol.services import ServiceSettings


class Settings(BaseModel):
    """Where the services listen; what is left empty is not served.

    Attributes:
        labels: At a student: where its applications ask for labels.
        review: At a teacher: where somebody lets its votes leave; where it does not listen, they leave at once.
        confirm: At a student: where somebody lets it learn the labels of a round; where it does not listen, it learns them at once.
        wait_s: At a student: how long a round waits for a teacher that is away before it goes on without it, in seconds.
    """

    model_config = ConfigDict(extra="forbid")

    labels: ServiceSettings = ServiceSettings()
    review: ServiceSettings = ServiceSettings()
    confirm: ServiceSettings = ServiceSettings()
    wait_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
