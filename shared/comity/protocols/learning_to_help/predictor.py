"""Predictions for applications, while a session is on: the client's model answers, and the server where the rejector says so.

Whatever waits is decided in one pass. Nobody who waits holds a thread; what the server does not answer in time, the
client's model answers.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from comity.errors import (
    ComityError,
    DeadlineExceeded,
    InvalidValue,
    NodeDraining,
    NonFiniteValue,
    PolicyRefusal,
    TooManyCalls,
    TransportError,
)
from comity.protocols.learning_to_help.asking import Purchase, RateCap

Route = Literal["auto", "local", "remote"]
"""Who is to answer: whom the rejector says, the client's model, or the server where that can be."""

_MOST_WAITING = 4096
"""Inputs that wait to be decided or answered."""
_TAKEN = 1024
"""Inputs that are decided in one pass, and most of one request."""
_AGAIN_S = 1.0
"""How long nothing is asked of a server that said that it is busy, in seconds."""


@dataclass(frozen=True)
class Decided:
    """What the client's side says of a batch.

    Attributes:
        logits: Of the client's model, `[batch, classes]`.
        steps: The 8-bit features, on the CPU.
        remote: Where the rejector says that the server is to be asked.
    """

    logits: Tensor
    steps: Tensor
    remote: Tensor


@dataclass(frozen=True)
class Predicted:
    """What is said of a batch.

    Attributes:
        scores: Probability of each class by whoever answered, `[batch, classes]`.
        remote: Where the server answered, `[batch]`.
        why: Why it did not, for each input; empty where it did. `WHY_LOCAL` explains.
    """

    scores: Tensor
    remote: Tensor
    why: tuple[str, ...]


class Model(Protocol):
    """What a predictor goes by."""

    def decide(self, inputs: Tensor) -> Decided:
        """Says what the client's model and the rejector say of prepared inputs."""

    def scores(self, value: Any, first: int, count: int) -> Tensor:
        """The outputs in a server's answer. Raises where it is none."""


@dataclass(eq=False)
class _Request:
    """Inputs that wait."""

    inputs: Tensor
    route: Route
    ends: float
    answer: Future[Any] = field(default_factory=Future)
    # What is known once it is decided.
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    remote: Tensor = field(default_factory=lambda: torch.empty(0))
    why: list[str] = field(default_factory=list)
    first: int = 0
    places: Tensor = field(default_factory=lambda: torch.empty(0))
    asked: Future[Any] | None = None


class Predictor:
    """Decides and answers what applications ask, in a thread of its own, until it is closed.

    Args:
        model: The client's model and the rejector.
        ask: Asks the server: the number of the first input, how many, their features, and within how many milliseconds.
        purchase: What may be asked.
        within_s: How long the server's answer is waited for where the caller says nothing, in seconds.
        is_away: Whether the server does not answer.
        cap: The hard cap on the reject rate; None for none.
        told: Is told of predictions as they are made, by what they are counted as.

    Attributes:
        failure: Why it has ended, where the server's answers are none.
        answered: Is called, in its thread, with how many answers are not settled yet.
    """

    def __init__(  # noqa: PLR0913
        self,
        model: Model,
        ask: Callable[[int, int, bytes, int], Future[Any]],
        purchase: Purchase,
        *,
        within_s: float,
        is_away: Callable[[], bool],
        cap: RateCap | None = None,
        told: Callable[[Counter[str]], None],
    ) -> None:
        self._model = model
        self._ask = ask
        self._purchase = purchase
        self._within_s = within_s
        self._is_away = is_away
        self._cap = cap
        self._told = told
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._done: deque[_Request] = deque()
        self._asked: dict[int, _Request] = {}
        self._ends: list[tuple[float, int, _Request]] = []
        self._order = count()
        self._held = 0
        self._busy_until = 0.0
        self._is_closed = False
        self.failure: ComityError | None = None
        self.answered: Callable[[int], None] = lambda _: None
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._thread.start()

    def predict(self, inputs: Tensor, *, route: Route = "auto", within_s: float | None = None) -> Future[Predicted]:
        """Has inputs answered.

        Args:
            inputs: Prepared inputs, `[batch, *shape]`.
            route: Who is to answer.
            within_s: How long the server's answer is waited for, in seconds; None for the node's own setting. Past it the
                client's model has answered.

        Returns:
            What is set once all of them are answered; cancelling it is to wait no more.

        Raises:
            InvalidValue: There are too many inputs in a request, or none.
            TooManyCalls: Too many wait; try again in a moment.
            NonFiniteValue: An input is NaN or infinite.
            NodeDraining: Nothing is answered any more.
        """
        if not 1 <= len(inputs) <= _TAKEN:
            raise InvalidValue("A request's inputs", expected=f"1 to {_TAKEN}", received=len(inputs))
        require_finite(inputs, "an input")
        ends = time.monotonic() + (self._within_s if within_s is None else min(within_s, self._within_s))
        request = _Request(inputs, route, ends)
        with self._changed:
            if self._is_closed:
                raise NodeDraining("predictions are not made any more", action="use the session's models")
            if self._held + len(inputs) > _MOST_WAITING:
                raise TooManyCalls(
                    "too many inputs wait to be answered",
                    expected=f"at most {_MOST_WAITING}",
                    received=f"{len(inputs)} more",
                    action="try again in a moment",
                )
            self._held += len(inputs)
            self._waiting.append(request)
            self._changed.notify()
        request.answer.add_done_callback(lambda each: self._wake(request) if each.cancelled() else None)
        return request.answer

    def close(self) -> None:
        """Answers what waits by the client's model, and ends."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._await_something()
                done, taken = [*self._done], self._take()
                self._done.clear()
                is_closed = self._is_closed
            for request in done:
                self._finish_remote(request)
            if taken:
                self._decide(taken)
            self._end_late(is_closed=is_closed)
            if is_closed and not taken:
                return

    def _await_something(self) -> None:
        while not (self._waiting or self._done or self._is_closed):
            if not self._ends:
                self._changed.wait()
                continue
            left = self._ends[0][0] - time.monotonic()
            if left <= 0 or (self._asked and self._is_away()):
                return
            self._changed.wait(min(left, 0.2))

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        inputs = 0
        while self._waiting and inputs + len(self._waiting[0].inputs) <= _TAKEN:
            request = self._waiting.popleft()
            if request.answer.cancelled():
                self._held -= len(request.inputs)
            else:
                taken.append(request)
                inputs += len(request.inputs)
        return taken

    def _decide(self, taken: list[_Request]) -> None:
        """One pass of the client's model and the rejector for all that waited; asks the server where it says so."""
        try:
            decided = self._model.decide(torch.cat([each.inputs for each in taken]))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            if len(taken) > 1:
                # Each by itself: the others do not notice.
                for request in taken:
                    self._decide([request])
                return
            self._release(taken[0])
            _answer(taken[0], error=error)
            return
        scores = decided.logits.softmax(dim=1).cpu()
        at = 0
        for request in taken:
            part = slice(at, at + len(request.inputs))
            at = part.stop
            request.scores = scores[part].clone()
            request.remote = torch.zeros(len(request.inputs), dtype=torch.bool)
            self._route(request, decided.remote[part], decided.steps[part])

    def _route(self, request: _Request, remote: Tensor, steps: Tensor) -> None:
        if request.route == "auto":
            self._told(Counter(free=len(remote), wanted=int(remote.sum())))
        why = [self._why_local(request.route, wants) for wants in remote.tolist()]
        wanted = [place for place, reason in enumerate(why) if not reason]
        # A question is answered as a whole: what does not fit into what is left, the client's model answers.
        hindrance = self._hindrance() if wanted else ""
        affordable = 0 if hindrance else max(min(len(wanted), self._purchase.left), 0)
        for place in wanted[affordable:]:
            why[place] = hindrance or ("spent" if self._purchase.is_ending else "busy")
        request.why = why
        if not affordable:
            self._finish(request)
            return
        request.places = torch.tensor(wanted[:affordable])
        request.first = self._purchase.begin(affordable)
        within_ms = max(int((request.ends - time.monotonic()) * 1000), 1)
        try:
            asked = self._ask(request.first, affordable, steps[request.places].numpy().tobytes(), within_ms)
        except ComityError as error:
            self._give_up(request, _why_not(error))
            return
        request.asked = asked
        self._asked[request.first] = request
        heapq.heappush(self._ends, (request.ends, next(self._order), request))
        asked.add_done_callback(lambda _: self._wake(request))

    def _why_local(self, route: Route, wants: bool) -> str:
        if route == "local":
            return "forced"
        wanted = route == "remote" or wants
        if self._cap is not None and not self._cap.take(wanted=wanted):
            return "capped" if wanted else "rejector"
        return "" if wanted else "rejector"

    def _hindrance(self) -> str:
        """Why the server cannot be asked now; empty where it can."""
        if self._is_closed or self._is_away():
            return "away"
        return "busy" if time.monotonic() < self._busy_until else ""

    def _wake(self, request: _Request) -> None:
        with self._changed:
            self._done.append(request)
            self._changed.notify()

    def _finish_remote(self, request: _Request) -> None:
        if request.asked is None or self._asked.pop(request.first, None) is None:
            # It waits, or was given up.
            return
        size = len(request.places)
        if request.answer.cancelled():
            request.asked.cancel()
            self._give_up(request, "gone")
            return
        try:
            answered = request.asked.result()
            outputs = self._model.scores(answered.value, request.first, size)
        except (PolicyRefusal, TransportError, NodeDraining, TooManyCalls, DeadlineExceeded) as error:
            self._give_up(request, _why_not(error))
            return
        except ComityError as error:
            # Not what was agreed: nothing more is asked.
            self.failure = error
            self._busy_until = float("inf")
            self._give_up(request, "busy")
            self.answered(0)
            return
        unsettled = self._purchase.answered(request.first, size, answered.asked, answered.answered)
        own = request.scores[request.places].argmax(dim=1)
        request.scores[request.places] = outputs.softmax(dim=1)
        request.remote[request.places] = True
        self._finish(request, int((own == outputs.argmax(dim=1)).sum()))
        self.answered(unsettled)

    def _give_up(self, request: _Request, why: str) -> None:
        self._purchase.given_up(len(request.places))
        if why == "busy":
            self._busy_until = max(self._busy_until, time.monotonic() + _AGAIN_S)
        for place in request.places.tolist():
            request.why[place] = why
        self._finish(request)

    def _end_late(self, *, is_closed: bool) -> None:
        """Answers those at home whose time is over, or all where the server is away."""
        now, is_away = time.monotonic(), is_closed or (bool(self._asked) and self._is_away())
        while self._ends and (self._ends[0][0] <= now or is_away or self._ends[0][2].first not in self._asked):
            _, _, request = heapq.heappop(self._ends)
            if self._asked.pop(request.first, None) is not None and request.asked is not None:
                request.asked.cancel()
                self._give_up(request, "late" if request.ends <= now else "away")

    def _finish(self, request: _Request, agreed: int = 0) -> None:
        self._release(request)
        counts = Counter(each for each in request.why if each)
        asked = int(request.remote.sum())
        self._told(counts + Counter(predictions=len(request.why), asked=asked, agreed=agreed))
        _answer(request, Predicted(request.scores, request.remote, tuple(request.why)))

    def _release(self, request: _Request) -> None:
        with self._changed:
            self._held -= len(request.inputs)


def _answer(request: _Request, predicted: Predicted | None = None, error: Exception | None = None) -> None:
    if not request.answer.set_running_or_notify_cancel():
        return
    if error is None:
        request.answer.set_result(predicted)
    else:
        request.answer.set_exception(error)


def _why_not(error: ComityError) -> str:
    match error:
        case PolicyRefusal():
            return "spent"
        case TooManyCalls():
            return "busy"
        case DeadlineExceeded():
            return "late"
        case _:
            return "away"


def require_finite(values: Tensor, what: str) -> None:
    """Checks that all values are numbers.

    Raises:
        NonFiniteValue: One of them is not.
    """
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteValue(what, expected="finite values", received="NaN or infinity")
