"""Calls on one stream in both directions: the side that is called, and the side that calls."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from google.protobuf.message import Message

from comity.errors import ComityError, DeadlineExceeded, NodeDraining
from comity.session.replayable_stream import StreamEnd
from comity.session.session_registry import AcceptedSession
from comity.transport.bindings.dispatcher import perform
from comity.transport.calls import Stream
from comity.transport.methods import Method


class Requests(Protocol):
    """What a caller sends, looked for without waiting."""

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Has something called, from any thread, whenever there may be a request."""

    def poll(self) -> Any:
        """The next request; None where there is none yet. Raises `StreamEnd` where there will be none."""

    def close(self) -> None:
        """Has nothing called any more."""


class Conversing:
    """A caller's stream at the party that is called; a `Source` of answers.

    Args:
        session: The session.
        method: A declared `Stream`.
        requests: What the caller sends.
    """

    def __init__(self, session: AcceptedSession, method: Method, requests: Requests) -> None:
        self._session = session
        self._method = method
        self._requests = requests
        call = method.call if isinstance(method.call, Stream) else None
        self._call = call
        self._most = 1 if call is None else call.most
        self._gone: set[int] = set()
        self._numbers: dict[Hashable, int] = {}
        self._lock = threading.Lock()
        self._open: dict[int, Future[Any] | None] = {}
        self._ready: deque[tuple[Message, Future[Any]]] = deque()
        self._count = 0
        self._is_whole = self._is_closed = False
        self._notify: Callable[[], None] = _ignored
        self._end: Callable[[], None] = _ignored

    def subscribe(self, notify: Callable[[], None]) -> None:
        """See `Source.subscribe`."""
        self._notify = notify
        self._end = self._session.closing.subscribe(notify)
        self._requests.subscribe(notify)
        notify()

    def close(self) -> None:
        """See `Source.close`; what the role has not begun with is cancelled."""
        self._notify = _ignored
        self._end()
        self._requests.close()
        with self._lock:
            self._is_closed = True
            answers = [each for each in self._open.values() if each is not None]
        for each in answers:
            each.cancel()

    def read(self) -> Message | None:
        """The next answer, which the gate has let out; takes what the caller sent, as far as there is room.

        Raises:
            StreamEnd: The caller sends no more, and has all answers.
            ComityError: A request does not fit or is refused, or the session was ended.
        """
        self._session.closing.read(0)
        self._take_in()
        while self._ready:
            request, answer = self._ready.popleft()
            # There is room again.
            self._take_in()
            message = self._answer(request, answer)
            if message is not None:
                return message
        with self._lock:
            is_over = self._is_whole and not self._open and not self._ready
        if is_over:
            raise StreamEnd
        return None

    def _answer(self, request: Message, answer: Future[Any]) -> Message | None:
        try:
            value = answer.result()
        except DeadlineExceeded:
            # Whoever asked has gone on without it; the others on this stream do not notice.
            return None
        with self._session.told_of_its_end():
            message = self._method.encode_answer(value)
            self._session.gate.send(message, request)
        return message

    def _take_in(self) -> None:
        while not self._is_whole and len(self._open) < self._most:
            try:
                request = self._requests.poll()
            except StreamEnd:
                self._is_whole = True
                return
            if request is None:
                return
            if self._call is not None and self._call.is_withdrawal(request):
                self._withdraw(self._call.key(request))
            else:
                self._begin(request)

    def _withdraw(self, key: Hashable) -> None:
        """Lets a request go whose caller has gone, if the role has not begun with it."""
        with self._lock:
            number = self._numbers.get(key)
            if number is None:
                return
            answer = self._open.get(number)
            self._gone.add(number)
        if answer is not None:
            answer.cancel()

    def _begin(self, request: Message) -> None:
        arguments = self._method.decode_request(request)
        self._count += 1
        number = self._count
        with self._lock:
            self._open[number] = None
            if self._call is not None:
                self._numbers[self._call.key(request)] = number
        arrived = time.monotonic()
        begun = self._session.worker.submit(lambda: perform(self._session, self._method, request, arguments, arrived))

        def follow(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                self._finish(number, request, done)
                return
            answer: Future[Any] = done.result()
            with self._lock:
                self._open[number] = answer
                is_over = self._is_closed or number in self._gone
            if is_over:
                answer.cancel()
            answer.add_done_callback(lambda each: self._finish(number, request, each))

        begun.add_done_callback(follow)

    def _finish(self, number: int, request: Message, answer: Future[Any]) -> None:
        with self._lock:
            self._open.pop(number, None)
            self._gone.discard(number)
            if self._call is not None and self._numbers.get(key := self._call.key(request)) == number:
                del self._numbers[key]
            if not answer.cancelled():
                self._ready.append((request, answer))
        self._notify()


class Conversation:
    """A stream at the party that calls: requests go out as they are asked, answers come back in any order.

    After a cut it is begun again, and what is not answered is asked again.

    Args:
        follow: Sends requests, from an iterator that is made anew after each cut, and yields answers.
        call: The declared call.
        name: Of its thread.

    Attributes:
        let_out: The gate, which what withdraws a request passes as requests do.
    """

    def __init__(
        self, follow: Callable[[Callable[[], Iterator[Message]]], Iterator[Message]], call: Stream, name: str
    ) -> None:
        self._follow = follow
        self._key = call.key
        self._withdraw = call.withdraw
        self.let_out: Callable[[Message], object] = _passed
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, tuple[Message, Future[Message]]] = {}
        self._unsent: deque[Hashable] = deque()
        self._withdrawn: deque[Message] = deque()
        self._generation = 0
        self._failure: Exception | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=f"converse-{name}", daemon=True)
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether it has ended by an error; another may be begun."""
        return self._failure is not None and not self._is_closed

    def ask(self, request: Message) -> Future[Message]:
        """Sends a request; the future is set to its answer, and cancelling it is to wait no more.

        Raises:
            ComityError: Why the stream has ended.
        """
        answer: Future[Message] = Future()
        key = self._key(request)
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._is_closed:
                raise _closed()
            self._waiting[key] = request, answer
            self._unsent.append(key)
            self._changed.notify_all()
        answer.add_done_callback(lambda _: self._forget(key, answer))
        return answer

    def close(self) -> None:
        """Ends the stream; what is not answered is cancelled."""
        with self._changed:
            self._is_closed = True
            self._generation += 1
            waiting = [answer for _, answer in self._waiting.values()]
            self._changed.notify_all()
        for answer in waiting:
            answer.cancel()

    def _forget(self, key: Hashable, answer: Future[Message]) -> None:
        with self._changed:
            request, known = self._waiting.get(key, (None, None))
            if request is None or known is not answer:
                return
            del self._waiting[key]
            is_sent = key not in self._unsent and not self._is_closed
        if answer.cancelled() and self._withdraw is not None and is_sent:
            withdrawal = self._withdraw(request)
            self.let_out(withdrawal)
            with self._changed:
                self._withdrawn.append(withdrawal)
                self._changed.notify_all()

    def _requests(self) -> Iterator[Message]:
        with self._changed:
            self._generation += 1
            generation = self._generation
            # What was not answered before a cut is asked again; what was withdrawn is gone with the stream.
            self._unsent = deque(self._waiting)
            self._withdrawn.clear()
        while True:
            with self._changed:
                while not self._unsent and not self._withdrawn and generation == self._generation:
                    self._changed.wait()
                if generation != self._generation:
                    return
                request: Message | None
                if self._withdrawn:
                    request = self._withdrawn.popleft()
                else:
                    request, _ = self._waiting.get(self._unsent.popleft(), (None, None))
            if request is not None:
                yield request

    def _work(self) -> None:
        try:
            while not self._is_closed:
                self._wait_for_requests()
                for message in self._follow(self._requests):
                    self._answered(message)
            error: Exception = _closed()
        except Exception as failure:  # noqa: BLE001 - it belongs to those who wait
            error = failure
        with self._changed:
            self._failure = error
            self._generation += 1
            waiting = [answer for _, answer in self._waiting.values()]
            self._changed.notify_all()
        for answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)

    def _wait_for_requests(self) -> None:
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()

    def _answered(self, message: Message) -> None:
        with self._changed:
            _, answer = self._waiting.get(self._key(message), (None, None))
        if answer is not None and answer.set_running_or_notify_cancel():
            answer.set_result(message)


def _closed() -> ComityError:
    return NodeDraining("the line is closed", action="run the session again")


def _passed(message: Message) -> None:
    """Where there is no gate."""
    del message


def _ignored() -> None:
    """Nobody asked to be told."""
