"""A client's own settings: `[protocols.learning_to_help]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """What a client decides for itself.

    Attributes:
        compare: Whether it asks about every test sample, also those that its rejector keeps, so that both parties alone and
            together can be compared. Each costs a request.
    """

    model_config = ConfigDict(extra="forbid")

    compare: bool = False
