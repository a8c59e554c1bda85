"""Pictures of experiments, with matplotlib (extra `report`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.report.drawing import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY = 3
"""Panels in a row, above which titles are small."""
_TITLE, _SMALL_TITLE = 9.0, 7.0
_TICKS, _AXIS_LABEL = 17.0, 12.0
"""Room for an axis' numbers and for what it is called, in points."""
_KEY, _LETTER = 0.42, 0.056
"""Width of a legend's sign with what is around it, and of a letter beside it, in inches."""


def save(draw: Callable[[Figure], None], path: Path, title: str = "") -> list[Path]:
    """Draws a picture and writes it as SVG and PNG.

    Args:
        draw: Draws on an empty figure.
        path: Where to, without an ending.
        title: Stands above the picture.

    Raises:
        InvalidValue: matplotlib is not installed.
    """
    with drawing(7.0, 3.2) as figure:
        draw(figure)
        if title:
            figure.suptitle(title, fontsize=8, color="dimgray")
        written = [path.with_suffix(".svg"), path.with_suffix(".png")]
        figure.savefig(written[0], metadata={"Date": None})
        figure.savefig(written[1], dpi=110, metadata={"Software": None})
    return written


def curves(
    axes: Axes,
    lines: Mapping[str, Sequence[float | None]],
    *,
    x: str = "round",
    y: str = "",
    legend: bool = True,
) -> None:
    """Lines over rounds 1, 2, …, each with its label."""
    for label, values in lines.items():
        axes.plot(range(1, len(values) + 1), [float("nan") if each is None else each for each in values], label=label)
    axes.set(xlabel=x, ylabel=y)
    # Rounds are whole.
    axes.locator_params(axis="x", integer=True)
    if legend:
        legend_under(axes)


def legend_below(figure: Figure) -> None:
    """One legend for all panels, which show the same lines: those of the first."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = _columns(labels, figure.get_figwidth())
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def legend_under(axes: Axes) -> None:
    """A panel's own legend, under it: over it, it would hide some of what is drawn. Its axes are named before."""
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415  # an extra

    figure = axes.get_figure(root=True)
    if figure is None:
        return
    labels = axes.get_legend_handles_labels()[1]
    grid = axes.get_gridspec()
    across = grid.ncols if grid is not None else 1
    below = _TICKS + (_AXIS_LABEL if axes.get_xlabel() else 0.0)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=axes.transAxes + ScaledTranslation(0.0, -below / 72, figure.dpi_scale_trans),
        ncols=_columns(labels, 0.85 * figure.get_figwidth() / across),
        frameon=False,
        borderaxespad=0.0,
    )


def _columns(labels: Sequence[str], width: float) -> int:
    """How many labels stand side by side in so many inches."""
    longest = max(map(len, labels), default=0)
    return max(1, min(len(labels), int(width / (_KEY + _LETTER * longest))))


def panels(figure: Figure, titles: Sequence[str], *, rows: int = 1, level: bool = False) -> list[Axes]:
    """Axes side by side, in `rows` rows, each with its title; `level` gives all of them the same vertical range."""
    columns = -(-len(titles) // rows)
    if rows > 1:
        figure.set_size_inches(7.0, 2.6 * rows)
    made: list[Any] = []
    for at, title in enumerate(titles):
        made.append(figure.add_subplot(rows, columns, at + 1, sharey=made[0] if level and made else None))
        made[-1].set_title(title, fontsize=_TITLE if columns <= _MANY else _SMALL_TITLE)
    return made


def bars(axes: Axes, groups: Mapping[str, Mapping[str, float | None]], *, y: str = "", legend: bool = True) -> None:
    """Bars side by side: for each group of the horizontal axis, one for each label."""
    labels = list(dict.fromkeys(label for group in groups.values() for label in group))
    width = 0.8 / max(1, len(labels))
    for at, label in enumerate(labels):
        heights = [group.get(label) or 0.0 for group in groups.values()]
        drawn = axes.bar([place + at * width for place in range(len(groups))], heights, width, label=label)
        # What is 0 looks like what was not measured.
        axes.bar_label(drawn, ["0" if group.get(label) == 0 else "" for group in groups.values()])
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(groups))], list(groups))
    axes.set_ylabel(y)
    if legend:
        legend_under(axes)
