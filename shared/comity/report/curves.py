"""Numbers over rounds, or over others, as pictures for a page: SVG with matplotlib (extra `report`), a title, a unit and what they mean."""

from __future__ import annotations

import io
from dataclasses import dataclass
from html import escape
from math import ceil, nan
from typing import TYPE_CHECKING

from comity.protocol.curves import ROUND, Curve
from comity.report.drawing import INK, drawing
from comity.report.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 24
"""Points up to which each is marked."""
_LINES = 10
"""Lines up to which a legend tells them apart."""
_LEGEND = 60
"""Letters that fit beside each other in a legend, with six for each line's colour."""
_DECADE = 10.0
_TOLD = 4
"""Lines up to which the text tells of each."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A curve as a page shows it.

    Attributes:
        title: What it is.
        unit: What it is measured in, and that its axis is logarithmic where it is; empty for a bare number.
        about: What it means, and what it shows, in words.
        svg: An `svg` element, whose texts are escaped and have the colour of the text around it.
    """

    title: str
    unit: str
    about: str
    svg: str


def picture(curve: Curve) -> Picture:
    """A curve as a picture.

    Raises:
        InvalidValue: matplotlib is not installed.
    """
    column = curve.column
    unit = ", ".join(filter(None, [column.measured_in, "logarithmic axis" if curve.is_logarithmic else ""]))
    shown = _shown(curve)
    about = " ".join(filter(None, [column.about, shown]))
    title = column.title if curve.over is not ROUND else f"{column.title} by round"
    label = f"{title}. {about}"
    return Picture(
        column.title, unit, about, _svg(curve).replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    )


def _shown(curve: Curve) -> str:
    """The first and the last value of each line, in words; of many lines nothing."""
    if len(curve.lines) > _TOLD:
        return ""
    told = []
    kind = {"shares": "share", "numbers": "number"}.get(curve.column.kind, curve.column.kind)
    for name, values in curve.lines.items():
        known = [(round, value) for round, value in zip(curve.rounds, values, strict=True) if value is not None]
        if not known:
            continue
        (first, began), (last, ended) = known[0], known[-1]
        written = [number(each, kind) for each in (began, ended)]  # type: ignore[arg-type]
        who = f"{name}: " if name else ""
        told.append(
            f"{who}{written[0]} {_place(curve, first)}"
            + (f", {written[1]} {_place(curve, last)}" if last != first else "")
        )
    return "; ".join(told) + "." if told else ""


def _place(curve: Curve, at: float) -> str:
    """Where on the horizontal axis a value is, in words."""
    over = curve.over
    return f"in round {at:g}" if over is ROUND else f"at {number(at, over.kind)}" + f" {over.unit}".rstrip()


def _svg(curve: Curve) -> str:
    names = [*curve.lines] if 1 < len(curve.lines) <= _LINES else []
    across = max(1, _LEGEND // (max(map(len, names), default=0) + 6))
    with drawing(3.2, 1.9 + 0.15 * ceil(len(names) / across)) as figure:
        from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: PLC0415 - extra `report`

        axes = figure.add_subplot()
        for name, values in curve.lines.items():
            marker = "." if len(values) <= _FEW else ""
            # What begins with an underscore has no line in a legend.
            label = f" {name}" if name.startswith("_") else name
            axes.plot(
                list(curve.rounds), [nan if each is None else each for each in values], marker=marker, label=label
            )
        axes.set_xlabel(curve.over.title)
        axes.set_ylabel(curve.column.measured_in)
        if curve.over.kind == "share":
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if curve.is_logarithmic:
            _logarithmic(axes, curve)
        if curve.column.kind in {"share", "shares"}:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if curve.column.kind == "integer":
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if names:
            # Above the lines: over them it would hide some, beside them take a third of the width.
            figure.legend(
                fontsize=7, loc="outside upper center", ncols=across, framealpha=0, handlelength=1, columnspacing=1
            )
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    text = written.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _logarithmic(axes: Axes, curve: Curve) -> None:
    """A logarithmic axis whose numbers are written out, and of which there are some within a decade, too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter  # noqa: PLC0415

    axes.set_yscale("log")
    values = [each for line in curve.lines.values() for each in line if each is not None]
    wide = max(values) > _DECADE * min(values)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
