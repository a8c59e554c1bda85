"""Numbers as people write them in tables. Light: a new node's file is written without torch."""

from __future__ import annotations

import math
import re

_POINTS_IN_GROUPS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?")
_COMMAS_IN_GROUPS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d*")


def number(cell: str, decimal: str = ".") -> float | None:
    """The number that a cell says; None if it says none, or one that is not finite.

    What stands between thousands is taken where it cannot be a decimal mark: `1.234,5` with a decimal comma, `1,234.5`
    with a point. `1.5` is no number where decimals stand behind a comma: it is not taken for 15.

    Args:
        cell: What the cell holds.
        decimal: What stands before decimals, a point or a comma.
    """
    if decimal == ",":
        if _POINTS_IN_GROUPS.fullmatch(cell):
            cell = cell.replace(".", "")
        elif "." in cell:
            return None
        cell = cell.replace(",", ".")
    elif _COMMAS_IN_GROUPS.fullmatch(cell):
        cell = cell.replace(",", "")
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None
