"""Sources of data that installed packages add."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from comity.data.config import SOURCES

GROUP = "comity.data"
"""Entry points of functions that give samples, by the names of the sources that they add; see `comity.data.python`."""


@cache
def added_sources() -> Mapping[str, str]:
    """Sources that installed packages add, and where each is. None takes the place of a built-in one."""
    built_in = {form.partition(":")[0] for form in SOURCES}
    return {point.name: point.value for point in entry_points(group=GROUP) if point.name not in built_in}
