"""A party's own settings: `[protocols.teacher-votes]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Where the services listen; what is left empty is not served.

    Attributes:
        labels: At a student: where its applications ask for labels, `host:port`.
        review: At a teacher: where somebody lets its votes leave, on loopback. Empty, they leave at once.
    """

    model_config = ConfigDict(extra="forbid")

    labels: str = ""
    review: str = ""
