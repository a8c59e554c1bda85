"""One thread that drives one single-threaded role."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from comity.errors import ComityError, NodeDraining, StorageError

Result = TypeVar("Result")


class Steppable(Protocol):
    """A role that works in small units."""

    def advance(self) -> bool:
        """Does a unit of the work at hand; False when there is none until somebody asks for something."""


class SessionWorker:
    """Does a role's work, and between two units of it what callers ask of the role.

    Args:
        role: The role; only this thread touches it from now on.
        name: Name of the thread.
    """

    def __init__(self, role: Steppable, name: str) -> None:
        self._role = role
        self._requests: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._stopped = False
        self._broken: StorageError | None = None
        self._thread.start()

    def call(self, request: Callable[[], Result], *, timeout: float | None = None) -> Result:
        """Runs `request` between two units of work and returns its result.

        Raises:
            NodeDraining: The worker was stopped.
            TimeoutError: It was not reached in `timeout` seconds.
        """
        if self._stopped:
            raise NodeDraining("the session is being stopped", action="try again when the node is back")
        future: Future[Result] = Future()
        self._requests.put((future, request))
        return future.result(timeout)

    def stop(self) -> None:
        """Ends the thread after the unit that it is in; returns when it has ended."""
        self._stopped = True
        self._requests.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        busy = True
        while True:
            try:
                item = self._requests.get(block=not busy)
            except queue.Empty:
                busy = self._advance()
                continue
            if item is None:
                break
            self._answer(*item)
            busy = True
        self._refuse_rest()

    def _advance(self) -> bool:
        try:
            return self._role.advance()
        except StorageError as error:
            self._broken = error
            return False
        except ComityError:
            # The role has told those who follow it, and answers every later call with the same error.
            return False

    def _answer(self, future: Future[Any], request: Callable[[], Any]) -> None:
        try:
            if self._broken is not None:
                raise self._broken
            future.set_result(request())
        except StorageError as error:
            # The role may be ahead of what is kept: only a restart, which goes by what is kept, brings them together.
            self._broken = error
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller, who waits in another thread
            future.set_exception(error)

    def _refuse_rest(self) -> None:
        while not self._requests.empty():
            item = self._requests.get()
            if item is not None:
                item[0].set_exception(
                    NodeDraining("the session is being stopped", action="try again when the node is back")
                )
