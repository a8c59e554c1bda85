"""One thread that drives one single-threaded role."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from comity import interruption
from comity.errors import ComityError, DeadlineExceeded, NodeDraining, SessionFailed, StorageError
from comity.session.limits import Limits

log = structlog.get_logger()

Result = TypeVar("Result")

_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a role can do nothing more.

    Attributes:
        error: What those who follow it are told.
        at: Since when, on the monotonic clock.
    """

    error: ComityError
    at: float


class Steppable(Protocol):
    """A role that works in small units."""

    def advance(self) -> bool:
        """Does a unit of the work at hand; False when there is none until the next call.

        A unit that may take long passes `interruption.point` between its steps; the library's trainings do.
        """

    def fail(self, error: ComityError) -> None:
        """Ends the session: those who follow it are told, and every later call is answered with the error."""


class Worker(Protocol):
    """Brings what callers ask to a role that one thread at a time may touch."""

    def call(self, request: Callable[[], Result]) -> Result:
        """Runs `request` between two units of work and returns its result.

        Raises:
            DeadlineExceeded: The unit at hand takes so long that the caller had better ask again.
        """

    def submit(self, request: Callable[[], Result]) -> Future[Result]:
        """Has `request` run between two units of work, without waiting for it."""

    def stop(self, patience_s: float | None = None) -> None:
        """Ends the work, the active unit between two of its steps."""

    def close(self) -> None:
        """Takes no more requests."""

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""

    @property
    def failure(self) -> Failure | None:
        """Why the role can do nothing more, and since when; None while it can."""


class InlineWorker:
    """A worker without a thread: what is asked is done by who asks, and the role's work by the caller that waits for it.

    Args:
        role: The role.
        name: Name of the session.
    """

    def __init__(self, role: Steppable, name: str = "") -> None:
        del name
        self._role = role

    def call(self, request: Callable[[], Result]) -> Result:
        """See `Worker.call`."""
        return request()

    def submit(self, request: Callable[[], Result]) -> Future[Result]:
        """See `Worker.submit`; it is done when this returns."""
        future: Future[Result] = Future()
        try:
            future.set_result(request())
        except Exception as error:  # noqa: BLE001 - it belongs to the caller that asks for the result
            future.set_exception(error)
        return future

    def advance(self) -> bool:
        """Does a unit of the role's work; False when there is none."""
        return self._role.advance()

    def stop(self, patience_s: float | None = None) -> None:
        """Nothing is on."""

    def close(self) -> None:
        """Nothing is on."""

    @property
    def queued(self) -> int:
        """What is asked is done at once."""
        return 0

    @property
    def failure(self) -> Failure | None:
        """Whoever advances it is told."""
        return None


class SessionWorker:
    """Does a role's work, and between two units of it what callers ask of the role.

    Args:
        role: The role; only this thread touches it from now on.
        name: Name of the session.
        wakes_in: Seconds until there may be work without a call; None for never.
        limits: How long a unit may take, and a caller has to wait for it.
    """

    def __init__(
        self,
        role: Steppable,
        name: str,
        wakes_in: Callable[[], float | None] = lambda: None,
        *,
        limits: Limits = _LIMITS,
    ) -> None:
        self._role = role
        self._wakes_in = wakes_in
        self._limits = limits
        self._session = name
        self._unit_began = time.monotonic()
        self._requests: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"session-{name}", daemon=True)
        # Nobody comes in once it is closed, so everything asked stands before the end.
        self._door = threading.Lock()
        self._stopped = False
        self._broken: StorageError | NodeDraining | None = None
        self._failure: Failure | None = None
        self._thread.start()

    def call(self, request: Callable[[], Result]) -> Result:
        """Runs `request` between two units of work and returns its result.

        Raises:
            NodeDraining: The worker was stopped.
            DeadlineExceeded: It was not begun before the caller had better ask again; it is not run then.
        """
        future = self.submit(request)
        wait([future], self._limits.call_s)
        if future.cancel():
            raise DeadlineExceeded(
                "the session is at work",
                expected=f"its turn within {self._limits.call_s:g} s",
                received="a unit of work that takes longer",
                action="ask again",
            )
        return future.result()

    def submit(self, request: Callable[[], Result]) -> Future[Result]:
        """Has `request` run between two units of work, without waiting for it.

        Raises:
            NodeDraining: The worker was stopped.
        """
        future: Future[Result] = Future()
        with self._door:
            if self._stopped:
                raise _draining()
            self._requests.put((future, request))
        return future

    def stop(self, patience_s: float | None = None) -> None:
        """Ends the thread after what was asked before; the unit that it is in ends between two of its steps.

        Args:
            patience_s: How long to wait for that, in seconds; None for as long as it takes. Who waits for an answer
                longer than that is told that the session is being stopped.
        """
        self.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(patience_s)
            if self._thread.is_alive():
                self._abandon()

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return self._requests.qsize()

    @property
    def failure(self) -> Failure | None:
        """See `Worker.failure`; a role that could not keep what it did goes on after a restart."""
        return self._failure

    def close(self) -> None:
        """Takes no more requests, and has the thread end when it is done with those that stand."""
        with self._door:
            self._stopped = True
            self._requests.put(None)

    def _abandon(self) -> None:
        """Answers those who wait; the active unit may take longer than they should."""
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._requests.get_nowait()
                if item is not None and item[0].set_running_or_notify_cancel():
                    item[0].set_exception(_draining())
        self._requests.put(None)

    def _work(self) -> None:
        # What is logged on the way says of which session it is.
        with structlog.contextvars.bound_contextvars(session=self._session), interruption.checked(self._require_wanted):
            self._work_on()

    def _require_wanted(self) -> None:
        """Whether the unit at hand is to go on; see `interruption.point`."""
        if self._stopped:
            raise interruption.Interrupted
        most_s = self._limits.unit_s
        if time.monotonic() - self._unit_began > most_s:
            raise SessionFailed(
                "a unit of the session's work takes too long",
                expected=f"at most {most_s:g} s, by limits.unit_s",
                received="a longer one",
                action="agree on less work between two messages, or have its operator raise the limit",
            )

    def _work_on(self) -> None:
        busy = True
        while True:
            try:
                item = self._requests.get(block=not busy, timeout=None if busy else self._wakes_in())
            except queue.Empty:
                busy = self._advance()
                continue
            if item is None:
                break
            self._answer(*item)
            busy = True

    def _advance(self) -> bool:
        self._unit_began = time.monotonic()
        try:
            return self._role.advance()
        except interruption.Interrupted:
            # The role stands amid a unit: what is kept says where it goes on, if it does.
            self._broken = _draining()
        except ComityError as error:
            if isinstance(error, StorageError):
                self._broken = error
            else:
                self._failure = Failure(error, time.monotonic())
            self._role.fail(error)
        except Exception as error:
            log.exception("session-broken", thread=self._thread.name)
            what = "the node failed in this session"
            failed = SessionFailed(
                what, received=type(error).__name__, action="its operator finds the reason in its log"
            )
            self._failure = Failure(failed, time.monotonic())
            self._role.fail(failed)
        return False

    def _answer(self, future: Future[Any], request: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if self._broken is not None:
            future.set_exception(self._broken)
            return
        self._unit_began = time.monotonic()
        try:
            future.set_result(request())
        except interruption.Interrupted:
            self._broken = _draining()
            future.set_exception(self._broken)
        except StorageError as error:
            # The role may be ahead of what is kept: only a restart, which goes by what is kept, brings them together.
            self._broken = error
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller, who waits in another thread
            future.set_exception(error)


def _draining() -> NodeDraining:
    return NodeDraining("the session is being stopped", action="try again when the node is back")
