"""Numbers, as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from comity.contract import Json
from comity.protocol.presentation import ColumnKind

_MINUTE, _HOUR = 60, 3600
_FEW = 12
"""Classes whose numbers stand beside each other; of more, the least and the greatest are named."""


def number(value: Json, kind: ColumnKind) -> str:
    """A number of a protocol's, or what it says in words; a dash where there is none."""
    if kind == "text":
        return str(value) if value else "-"
    if isinstance(value, Mapping):
        return _of_each(value, share=kind == "shares")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    written = {"integer": f"{value:.0f}", "share": f"{100 * value:.1f} %", "seconds": f"{value:.2f}"}
    return written.get(kind, f"{value:.4g}")


def _of_each(values: Mapping[str, Json], *, share: bool) -> str:
    """A number for each class, in their order; shares in percent."""
    known = {name: float(each) for name, each in values.items() if isinstance(each, int | float)}
    written = {name: f"{100 * each:.0f}" if share else f"{each:.3g}" for name, each in known.items()}
    if not known:
        return "-"
    if len(values) <= _FEW:
        return " ".join(written.get(name, "-") for name in values)
    least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return f"{written[least]} ({least}) to {written[most]} ({most})"


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
