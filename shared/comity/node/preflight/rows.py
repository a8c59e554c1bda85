"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from comity.errors import ComityError, of_system

Verdict = Literal["passed", "warning", "failed", "skipped"]

Side = Literal["node", "peer"]
"""Who has to act when a row fails: this node's operator, or a peer's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at.

    Attributes:
        check: What.
        verdict: How it is.
        found: What was found; why, where it was skipped.
        action: What to do about it, where there is something to do.
        side: Who has to.
    """

    check: str
    verdict: Verdict
    found: str
    action: str = ""
    side: Side = "node"


class NotChecked(Exception):
    """A check cannot be made, since what it needs is missing; another row says what is wrong."""


def of_error(check: str, error: Exception, side: Side = "node") -> Row:
    """The row of a check that failed; an unexpected error shows as its class."""
    if isinstance(error, NotChecked):
        return Row(check, "skipped", str(error))
    if isinstance(error, OSError):
        error = of_system(error) or error
    if isinstance(error, ComityError):
        found = ComityError(error.what, expected=error.expected, received=error.received)
        return Row(check, "failed", str(found), error.action or f"see {error.reason()} in docs/errors.md", side)
    unexpected = ComityError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    return Row(check, "failed", str(unexpected), "this check itself failed; please report it with this line", side)


def exit_code(rows: Iterable[Row]) -> int:
    """What the command ends with: 2 where this node has to be set right, 1 where only a peer has, else 0."""
    sides = {row.side for row in rows if row.verdict == "failed"}
    return 2 if "node" in sides else 1 if sides else 0
