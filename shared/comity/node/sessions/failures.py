"""Errors as what is kept and told of a session."""

from __future__ import annotations

from comity.contract import Json
from comity.errors import ComityError


def failure(error: ComityError) -> dict[str, Json]:
    """An error as fields, from which the other end raises it again."""
    fields: dict[str, Json] = {"reason": error.reason(), "what": error.what, "action": error.action}
    return fields | {
        name: value for name, value in (("expected", error.expected), ("received", error.received)) if value
    }
