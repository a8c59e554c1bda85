"""When an application's input may be asked about: the requests that are bought, and the hard cap on the reject rate."""

from __future__ import annotations

import math
import time
from collections import deque

from comity.errors import InvalidValue
from comity.session.metering.requests import RequestMeter

_DOUBT_S = 5.0
"""How long after the caller has given a question up the server may still answer it, in seconds."""


class Purchase:
    """How many of the bought requests are left: what is charged is not, nor what is answered, on its way, or in doubt.

    Args:
        meter: Numbers and charges.
    """

    def __init__(self, meter: RequestMeter) -> None:
        self._meter = meter
        self._on_the_way = 0
        self._in_doubt: deque[tuple[float, int]] = deque()

    @property
    def left(self) -> int:
        """How many inputs can be asked about now: of what is bought, and of what the server answers without being paid."""
        metered = self._meter.metered
        return min(metered.bought - self._meter.charged, metered.credit) - self._open

    @property
    def is_ending(self) -> bool:
        """Whether what is left is the end of what was bought; if not, more may be asked after the next settlement."""
        metered = self._meter.metered
        return metered.bought - self._meter.charged <= metered.credit

    @property
    def _open(self) -> int:
        return self._meter.unsettled + self._on_the_way + sum(count for _, count in self._in_doubt)

    def begin(self, count: int) -> int:
        """Takes so many; returns the number of the first."""
        self._on_the_way += count
        return self._meter.number(count)

    def answered(self, first: int, count: int, asked: int, answered: int) -> int:
        """Notes an answer, which is charged; returns how many are not settled yet.

        Args:
            first: Number of the first input.
            count: How many there are.
            asked: Length of the question on the wire, in bytes.
            answered: Length of the answer, in bytes.
        """
        self._on_the_way -= count
        # The whole question is on its first number's account.
        for number in range(first, first + count):
            self._meter.answered(number, *((asked, answered) if number == first else (0, 0)))
        return self._meter.unsettled

    def given_up(self, count: int) -> None:
        """Notes a question whose answer is not waited for: it may be answered all the same, and charged then."""
        self._on_the_way -= count
        self._in_doubt.append((time.monotonic(), count))

    def settled(self, began: float) -> None:
        """Ends the doubt about what was given up long before a settlement: the server has answered it, or never will.

        Args:
            began: When the settlement began, on the monotonic clock.
        """
        while self._in_doubt and self._in_doubt[0][0] < began - _DOUBT_S:
            self._in_doubt.popleft()


class RateCap:
    """A bucket of tokens, each of which comes back once so many inputs have passed: a cap that no chance exceeds.

    Of any `window` inputs in a row at most the share `limit` is asked about. It is kept in memory: after a restart a window
    begins anew.

    Args:
        limit: q, 0 to 1.
        window: So many inputs.

    Raises:
        InvalidValue: One of them is out of range.

    Examples:
        >>> cap = RateCap(limit=0.25, window=4)
        >>> [cap.take(wanted=True) for _ in range(6)]
        [True, False, False, False, True, False]
    """

    def __init__(self, limit: float, window: int) -> None:
        if not 0 <= limit <= 1 or window < 1:
            raise InvalidValue(
                "A cap on the reject rate",
                expected="a limit of 0 to 1 and a window of 1 or more",
                received=(limit, window),
            )
        self._window = window
        self._most = math.floor(limit * window + 1e-9)
        self._seen = 0
        self._taken: deque[int] = deque()

    def take(self, *, wanted: bool) -> bool:
        """Passes an input; returns whether it may be asked about.

        Args:
            wanted: Whether it would be.
        """
        at, self._seen = self._seen, self._seen + 1
        while self._taken and self._taken[0] <= at - self._window:
            self._taken.popleft()
        if not wanted or len(self._taken) >= self._most:
            return False
        self._taken.append(at)
        return True
