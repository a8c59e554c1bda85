"""Where a node's applications ask for predictions; light, for a protocol's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SOCKET = "predictions.sock"
"""Its name in a node's `state_dir`."""


class DoorSettings(BaseModel):
    """Where a door is.

    Attributes:
        listen: Where gRPC is served, `host:port` or `unix:PATH`; empty for `predictions.sock` in the node's `state_dir`. On
            a port callers need the token, elsewhere than on loopback a certificate of this party's as well.
        http: Where HTTP is served, `host:port` on loopback or `unix:PATH` (extra `web`); empty for not at all.
        names: What applications may call models besides by the session: for each name a pattern of sessions, such as
            `{ digits = "digits-*" }`, of which the one that began last answers. So a new session takes over from the one
            before while both are on.
        drain_s: How long calls may take when the node is stopped, in seconds.
    """

    model_config = ConfigDict(extra="forbid")

    listen: str = ""
    http: str = ""
    names: dict[Annotated[str, Field(min_length=1)], str] = {}
    drain_s: Annotated[float, Field(ge=0)] = 5.0


def address_in(settings: DoorSettings, state_dir: Path) -> str:
    """Where gRPC is served."""
    return settings.listen or f"unix:{state_dir / SOCKET}"
