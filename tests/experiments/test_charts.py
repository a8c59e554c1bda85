"""Legends of pictures: beside what is drawn, never over it, and large enough to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comity.experiments.charts import bars, curves, legend_below, panels
from comity.report.drawing import drawing

LEAST_POINTS = 7.0
LINES = {f"a strategy of the name {name}": [0.1, 0.9] for name in "abcdefgh"}


@pytest.fixture
def figure() -> Iterator[Figure]:
    with drawing(7.0, 3.2) as made:
        yield made


def drawn_curves(axes: Axes) -> None:
    curves(axes, LINES, y="accuracy")


def drawn_bars(axes: Axes) -> None:
    bars(axes, {"public": {"changes": 0.0, "differences": 2.0}, "guarded": {"changes": 1.0}}, y="samples")


@pytest.mark.parametrize("draw", [drawn_curves, drawn_bars])
@pytest.mark.parametrize("count", [1, 3])
def test_a_panels_legend_is_under_it(figure: Figure, draw: Callable[[Axes], None], count: int) -> None:
    made = panels(figure, ["a title"] * count)
    for axes in made:
        draw(axes)
    figure.draw_without_rendering()
    for axes in made:
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_window_extent().y1 < axes.xaxis.get_tightbbox().y0  # type: ignore[union-attr]
        assert legend.get_window_extent().y0 >= 0
        assert min(text.get_fontsize() for text in legend.get_texts()) >= LEAST_POINTS


def test_one_legend_of_all_panels_is_under_them(figure: Figure) -> None:
    made = panels(figure, ["one", "two", "three"], level=True)
    for axes in made:
        curves(axes, LINES, legend=False)
    legend_below(figure)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert all(legend.get_window_extent().y1 <= axes.get_tightbbox().y0 for axes in made)  # type: ignore[union-attr]
    assert legend.get_window_extent().x0 >= 0
    assert min(text.get_fontsize() for text in legend.get_texts()) >= LEAST_POINTS


def test_a_bar_of_nothing_is_told_from_one_that_is_not_there(figure: Figure) -> None:
    (axes,) = panels(figure, ["samples shown"])
    drawn_bars(axes)
    assert [each.get_text() for each in axes.texts if each.get_text()] == ["0"]
