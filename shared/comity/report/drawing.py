"""Figures of matplotlib's (extra `report`), all in one style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comity.errors import InvalidValue

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""Colour of texts and axes, which a page replaces with that of its own text."""

_STYLE = {
    "svg.hashsalt": "comity",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.0,
    "legend.fontsize": 7.5,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 1.2,
    "axes.grid": True,
    "grid.alpha": 0.3,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
"""The same picture is the same file; text stays text, and what a peer calls its classes is no formula."""


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure, to be drawn on and saved within the body.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        InvalidValue: matplotlib is not installed.
    """
    try:
        # Not pyplot: it keeps figures and opens windows.
        from matplotlib import rc_context  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise InvalidValue(
            "pictures need matplotlib",
            expected="the extra report",
            received="not installed",
            action="pip install 'comity[report]'",
        ) from error
    with rc_context(_STYLE):  # type: ignore[arg-type]
        yield Figure(figsize=(width, height), layout="constrained")
