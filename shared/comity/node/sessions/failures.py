"""Errors as what is kept and told of a session."""

from __future__ import annotations

from collections.abc import Mapping

from comity.contract import Json
from comity.errors import ComityError, SessionFailed, tree


def failure(error: ComityError) -> dict[str, Json]:
    """An error as fields, from which the other end raises it again."""
    fields: dict[str, Json] = {"reason": error.reason(), "what": error.what, "action": error.action}
    return fields | {
        name: value for name, value in (("expected", error.expected), ("received", error.received)) if value
    }


def raised(fields: Mapping[str, Json]) -> ComityError:
    """The error of which fields tell."""
    classes = {error.reason(): error for error in tree()}
    said = {name: str(value) for name, value in fields.items()}
    return classes.get(said.get("reason", ""), SessionFailed)(
        said.get("what", "the session failed"),
        expected=said.get("expected"),
        received=said.get("received"),
        action=said.get("action", ""),
    )
