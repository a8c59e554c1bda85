"""Many samples between a node and its operator, a page at a time: a message holds a part of a pool, however large that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from comity.contract import Json
from comity.errors import InvalidValue

Item = TypeVar("Item")

PAGE_BYTES = 2**20
"""After how much a message of many samples is cut; what is left is asked for, or said, in the next."""


def begin_of(fields: Mapping[str, Any]) -> int:
    """Where the page begins that is asked for.

    Raises:
        InvalidValue: There can be no such page.
    """
    begin = fields.get("begin", 0)
    if isinstance(begin, int) and begin >= 0:
        return begin
    raise InvalidValue("there is no such page", expected="a number, 0 or more", received=f"{begin!r}"[:100])


def page(items: Sequence[Item], shown: Callable[[Item], Json], begin: int) -> tuple[list[Json], int | None]:
    """So many of some items, from one on, as a message holds; and where the next page begins, None after the last."""
    found: list[Json] = []
    size = 0
    for at in range(begin, len(items)):
        if size >= PAGE_BYTES:
            return found, at
        found.append(shown(items[at]))
        size += len(json.dumps(found[-1]))
    return found, None


def pages(items: Sequence[Json]) -> Iterator[list[Json]]:
    """All of some items, by pages; one without any where there are none."""
    begin: int | None = 0
    while begin is not None:
        found, begin = page(items, lambda each: each, begin)
        yield found
