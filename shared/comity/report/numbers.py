"""Numbers, as people read them."""

from __future__ import annotations

from typing import Literal

from comity.contract import Json

_MINUTE, _HOUR = 60, 3600


def number(value: Json, kind: Literal["integer", "number", "share", "seconds", "text"]) -> str:
    """A number of a protocol's, or what it says in words; a dash where there is none."""
    if kind == "text":
        return str(value) if value else "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    match kind:
        case "integer":
            return f"{value:.0f}"
        case "number":
            return f"{value:.4g}"
        case "share":
            return f"{100 * value:.1f} %"
        case "seconds":
            return f"{value:.2f}"


def size(count: float) -> str:
    """A number of bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float) -> str:
    """A time that something takes."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
