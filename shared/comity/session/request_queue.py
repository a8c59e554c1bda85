"""Requests that wait to be answered together: as many as there are, without a timer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from comity.errors import ComityError, DeadlineExceeded, TooManyCalls


@dataclass(eq=False, slots=True)
class Queued:
    """A request that waits.

    Attributes:
        request: What is asked, as the role has it.
        answer: Is set to what is answered; cancelled when nobody waits for it.
        ends: When it is of no use any more, on the monotonic clock; None for never.
    """

    request: Any
    answer: Future[Any] = field(default_factory=Future)
    ends: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return self.ends is not None and time.monotonic() > self.ends


class RequestQueue:
    """What a role is asked, until it takes it; the role's own thread puts and takes.

    Args:
        most: How many may wait.
    """

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._waiting: deque[Queued] = deque()
        self._taken: Sequence[Queued] = ()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, request: Any, ends: float | None = None) -> Future[Any]:
        """Has a request wait; returns what its answer is set in.

        Args:
            request: What is asked.
            ends: When it is of no use any more, on the monotonic clock; None for never.

        Raises:
            TooManyCalls: As many wait as may, and somebody waits for each of them.
        """
        if len(self._waiting) >= self._most:
            self._drop_useless()
        if len(self._waiting) >= self._most:
            raise TooManyCalls(
                "too many requests wait",
                expected=f"at most {self._most}",
                received="one more",
                action="ask again in a moment",
            )
        queued = Queued(request, ends=ends)
        self._waiting.append(queued)
        return queued.answer

    def take(self, most: int) -> Sequence[Queued]:
        """The oldest requests for which somebody still waits; each is the taker's to answer, before it takes others."""
        taken: list[Queued] = []
        while self._waiting and len(taken) < most:
            queued = self._waiting.popleft()
            if self._is_wanted(queued):
                taken.append(queued)
        self._taken = taken
        return taken

    def fail(self, error: ComityError) -> None:
        """Answers all with an error, those that were taken and could not be answered as well."""
        for queued in self._taken:
            if not queued.answer.done():
                queued.answer.set_exception(error)
        self._taken = ()
        while self._waiting:
            queued = self._waiting.popleft()
            if queued.answer.set_running_or_notify_cancel():
                queued.answer.set_exception(error)

    def _drop_useless(self) -> None:
        for queued in list(self._waiting):
            if queued.answer.cancelled() or queued.is_late:
                self._waiting.remove(queued)
                self._is_wanted(queued)

    def _is_wanted(self, queued: Queued) -> bool:
        """Whether somebody waits for an answer, who from now on gets one; whoever waits too long is told so."""
        if not queued.answer.set_running_or_notify_cancel():
            return False
        if queued.is_late:
            queued.answer.set_exception(
                DeadlineExceeded(
                    "the request's deadline has passed",
                    expected="an answer within it",
                    received="none",
                    action="allow it more time",
                )
            )
            return False
        return True
