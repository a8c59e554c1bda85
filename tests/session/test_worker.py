"""A worker drives a role alone: calls come between units of work, and everybody who waits is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from comity import interruption
from comity.errors import ComityError, DeadlineExceeded, NodeDraining, SessionFailed, TrainingDiverged
from comity.session.limits import Limits
from comity.session.worker import SessionWorker

DEADLINE_S = 5.0


class Counting:
    """A role with so many units of work, which fails when they are done if it is told how."""

    def __init__(self, units: int = 0, failure: Exception | None = None) -> None:
        self.left = units
        self.done = 0
        self.failure = failure
        self.threads: set[str] = set()
        self.idle = threading.Event()
        self.failed = threading.Event()

    def fail(self, error: ComityError) -> None:
        self.failed.set()

    def advance(self) -> bool:
        self.threads.add(threading.current_thread().name)
        if self.left:
            self.left -= 1
            self.done += 1
            return True
        self.idle.set()
        if self.failure is not None:
            raise self.failure
        return False


@pytest.fixture
def work() -> Iterator[Callable[[Counting], SessionWorker]]:
    workers = []

    def start(role: Counting) -> SessionWorker:
        workers.append(SessionWorker(role, "worker"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


def test_work_is_done_without_being_asked_for(work: Callable[[Counting], SessionWorker]) -> None:
    role = Counting(5)
    work(role)
    assert role.idle.wait(DEADLINE_S)
    assert role.done == 5
    assert role.threads == {"session-worker"}


def test_calls_run_in_the_workers_thread_and_return(work: Callable[[Counting], SessionWorker]) -> None:
    worker = work(Counting())
    assert worker.call(lambda: threading.current_thread().name) == "session-worker"


def test_a_call_brings_new_work(work: Callable[[Counting], SessionWorker]) -> None:
    role = Counting()
    worker = work(role)
    assert role.idle.wait(DEADLINE_S)

    def more() -> None:
        role.left = 3
        role.idle.clear()

    worker.call(more)
    assert role.idle.wait(DEADLINE_S)
    assert role.done == 3


def test_a_call_is_answered_between_two_units_of_endless_work(work: Callable[[Counting], SessionWorker]) -> None:
    role = Counting(10**9)
    worker = work(role)
    first = worker.call(lambda: role.done)
    assert worker.call(lambda: role.done) >= first
    assert role.left


@pytest.mark.parametrize("error", [TrainingDiverged("it diverged"), KeyError("strange")])
def test_a_calls_error_belongs_to_its_caller_alone(work: Callable[[Counting], SessionWorker], error: Exception) -> None:
    worker = work(Counting())

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        worker.call(fail)
    assert caught.value is error
    assert worker.call(lambda: 1) == 1


@pytest.mark.parametrize("failure", [TrainingDiverged("it diverged"), RuntimeError("out of memory")])
def test_a_role_that_fails_still_answers(work: Callable[[Counting], SessionWorker], failure: Exception) -> None:
    # A role tells those who follow it; a worker that is gone would leave everybody else waiting for ever.
    role = Counting(1, failure)
    worker = work(role)
    assert role.failed.wait(DEADLINE_S)
    assert worker.call(lambda: role.done) == 1


def test_calls_take_turns(work: Callable[[Counting], SessionWorker]) -> None:
    worker = work(Counting(10**9))
    inside = threading.Lock()

    def alone() -> bool:
        with inside:
            return True

    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(worker.call, alone) for _ in range(50)]
        assert all(each.result(DEADLINE_S) for each in answers)


def test_a_stopped_worker_takes_no_calls(work: Callable[[Counting], SessionWorker]) -> None:
    worker = work(Counting(10**9))
    worker.stop()
    worker.stop()
    with pytest.raises(NodeDraining, match="stopped"):
        worker.call(lambda: 1)


def test_those_who_wait_when_it_stops_are_answered(work: Callable[[Counting], SessionWorker]) -> None:
    worker = work(Counting())
    entered, leave = threading.Event(), threading.Event()

    def hold() -> bool:
        entered.set()
        return leave.wait(DEADLINE_S)

    queued = 4
    with ThreadPoolExecutor(queued + 2) as callers:
        holding = callers.submit(worker.call, hold)
        assert entered.wait(DEADLINE_S)
        stopping = callers.submit(worker.stop)
        waiting = [callers.submit(worker.call, lambda: True) for _ in range(queued)]
        leave.set()
        stopping.result(DEADLINE_S)
        assert holding.result(DEADLINE_S)
        for each in waiting:
            with suppress(NodeDraining):
                assert each.result(DEADLINE_S)


def test_those_who_wait_longer_than_the_stop_are_told(work: Callable[[Counting], SessionWorker]) -> None:
    worker = work(Counting())
    entered, leave = threading.Event(), threading.Event()

    def hold() -> bool:
        entered.set()
        return leave.wait(DEADLINE_S)

    with ThreadPoolExecutor(2) as callers:
        holding = callers.submit(worker.call, hold)
        assert entered.wait(DEADLINE_S)
        waiting = callers.submit(worker.call, lambda: True)
        worker.stop(0.01)
        try:
            with pytest.raises(NodeDraining, match="being stopped"):
                waiting.result(DEADLINE_S)
        finally:
            leave.set()
        assert holding.result(DEADLINE_S)
    worker.stop()


def test_a_call_that_meets_a_stop_is_answered(
    work: Callable[[Counting], SessionWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = work(Counting())
    requests = worker._requests

    class StopsMeanwhile:
        """Gives the worker time to end between a call's look at it and its request."""

        def put(self, item: Any) -> None:
            monkeypatch.undo()
            stopping.start()
            stopping.join(0.2)
            requests.put(item)

        def __getattr__(self, name: str) -> Any:
            return getattr(requests, name)

    stopping = threading.Thread(target=worker.stop)
    monkeypatch.setattr(worker, "_requests", StopsMeanwhile())
    with suppress(NodeDraining):
        assert worker.call(lambda: True)
    stopping.join()


def test_a_worker_can_be_stopped_from_within(work: Callable[[Counting], SessionWorker]) -> None:
    worker = work(Counting())
    worker.call(worker.stop)
    worker.stop()


class Endless:
    """A role whose one unit of work never ends by itself."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.failure: list[ComityError] = []

    def advance(self) -> bool:
        if self.failure:
            return False
        self.begun.set()
        while True:
            interruption.point()
            threading.Event().wait(0.001)

    def fail(self, error: ComityError) -> None:
        self.failure.append(error)


def test_a_unit_ends_with_its_worker_between_two_steps() -> None:
    role = Endless()
    worker = SessionWorker(role, "worker")
    assert role.begun.wait(DEADLINE_S)
    waiting = worker.submit(lambda: True)
    worker.stop(DEADLINE_S)
    assert not worker._thread.is_alive()
    # What the role is amid is nobody's business any more, and no failure of the session.
    assert isinstance(waiting.exception(), NodeDraining)
    assert not role.failure


def test_a_unit_that_takes_too_long_fails_its_session() -> None:
    role = Endless()
    worker = SessionWorker(role, "worker", limits=Limits(unit_s=0.05))
    assert worker.call(lambda: True)
    worker.stop()
    (failure,) = role.failure
    assert isinstance(failure, SessionFailed)
    assert worker.failure is not None
    assert worker.failure.error is failure
    assert "limits.unit_s" in str(failure)


def test_whoever_calls_amid_a_long_unit_is_told_to_call_again() -> None:
    role = Endless()
    worker = SessionWorker(role, "worker", limits=Limits(call_s=0.05))
    assert role.begun.wait(DEADLINE_S)
    called = threading.Event()
    with pytest.raises(DeadlineExceeded, match="the session is at work"):
        worker.call(called.set)
    worker.stop()
    assert not called.is_set()
