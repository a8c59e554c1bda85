"""Numbers over rounds, as SVG that can stand in a page; with matplotlib (extra `report`)."""

from __future__ import annotations

import io
import math

from comity.protocol.curves import Curve
from comity.report.drawing import drawing

_FEW = 24
"""Points up to which each is marked."""
_LINES = 10
"""Lines up to which a legend tells them apart."""


def draw(curve: Curve) -> str:
    """An `svg` element.

    Raises:
        InvalidValue: matplotlib is not installed.
    """
    with drawing(4.2, 2.4) as figure:
        from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: PLC0415 - extra `report`

        axes = figure.add_subplot()
        for name, values in curve.lines.items():
            marker = "." if len(values) <= _FEW else ""
            axes.plot(
                list(curve.rounds), [math.nan if each is None else each for each in values], marker=marker, label=name
            )
        axes.set_title(curve.column.title)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if curve.column.kind in {"share", "shares"}:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if curve.column.kind == "integer":
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if 1 < len(curve.lines) <= _LINES:
            axes.legend(fontsize=6, loc="best")
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]
