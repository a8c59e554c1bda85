"""Sets of whole numbers, kept as ranges: thousands that follow each other take no more room than one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from comity.errors import MalformedMessage

Range = tuple[int, int]
"""The first and the last of numbers that follow each other."""


MOST_NUMBER = 2**62
"""What a peer's number stays below: databases keep 63 bits."""


class Numbers:
    """A set of whole numbers from 1 on.

    Args:
        ranges: The first and the last of each range, in any order.
    """

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last - first + 1)

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Numbers:
        """The set of these numbers."""
        found = cls()
        for each in numbers:
            found.add(each)
        return found

    @classmethod
    def received(cls, ranges: Sequence[Any]) -> Numbers:
        """The set that another party describes by its ranges.

        Raises:
            MalformedMessage: They are no ranges of numbers from 1 on, in order and apart.
        """
        last = 0
        for each in ranges:
            if len(each) != 2 or not last < each[0] <= each[1] < MOST_NUMBER:
                raise MalformedMessage(
                    "ranges of numbers cannot be used",
                    expected=f"from 1 to {MOST_NUMBER}, in order and apart",
                    received=each,
                )
            last = each[1]
        return cls(ranges)

    def add(self, first: int, count: int = 1) -> None:
        """Adds numbers that follow each other."""
        last = first + count - 1
        begin = bisect_right(self._lasts, first - 2)
        end = bisect_right(self._firsts, last + 1)
        if begin < end:
            first, last = min(first, self._firsts[begin]), max(last, self._lasts[end - 1])
        self._firsts[begin:end], self._lasts[begin:end] = [first], [last]

    def update(self, other: Numbers) -> None:
        """Adds the numbers of another set."""
        for first, last in other.ranges:
            self.add(first, last - first + 1)

    def __contains__(self, number: int) -> bool:
        """Whether a number is in it."""
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __iter__(self) -> Iterator[int]:
        """The numbers in order."""
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        """How many they are."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __eq__(self, other: object) -> bool:
        """Whether another set has the same numbers."""
        return isinstance(other, Numbers) and self.ranges == other.ranges

    __hash__ = None  # type: ignore[assignment]

    def overlaps(self, other: Numbers) -> bool:
        """Whether a number is in both."""
        return len(Numbers([*self.ranges, *other.ranges])) < len(self) + len(other)

    @property
    def last(self) -> int:
        """The greatest of them; 0 of none."""
        return self._lasts[-1] if self._lasts else 0

    @property
    def ranges(self) -> list[Range]:
        """The ranges in order; between any two a number is missing."""
        return list(zip(self._firsts, self._lasts, strict=True))
