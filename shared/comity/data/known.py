"""Whether there is a source of data of a name. Light: a new node's file is written without torch."""

from __future__ import annotations

from comity.data.added import added_sources
from comity.data.config import SOURCES
from comity.errors import InvalidValue
from comity.suggestions import near

GAMES = "gymnasium"
"""What a source of games begins with."""


def require_known(source: str) -> None:
    """Checks that a source is one that comes with this library, or that a package adds, and names a place where it has one.

    Raises:
        InvalidValue: It is not.
    """
    kind, _, location = source.partition(":")
    forms = {form.partition(":")[0]: form for form in SOURCES}
    if kind in forms:
        if bool(location) == (":" in forms[kind]):
            return
    elif kind in added_sources():
        return
    forms |= {each: f"{each}:" for each in added_sources()} | {GAMES: f"{GAMES}:<id>"}
    meant = near(kind, forms)
    raise InvalidValue(
        "There is no such data source",
        expected=f"one of {', '.join(forms.values())}",
        received=repr(source),
        action=f"did you mean {forms[meant]!r}?" if meant is not None else "comity data lists them",
    )
