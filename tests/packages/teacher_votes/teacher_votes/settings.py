"""A party's own settings: `[protocols.teacher-votes]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from comity.protocol.services import ServiceSettings


class Settings(BaseModel):
    """Where the services listen; what is left empty is not served.

    Attributes:
        labels: At a student: where its applications ask for labels.
        review: At a teacher: where somebody lets its votes leave; where it does not listen, they leave at once.
    """

    model_config = ConfigDict(extra="forbid")

    labels: ServiceSettings = ServiceSettings()
    review: ServiceSettings = ServiceSettings()
