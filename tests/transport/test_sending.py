"""What a caller does beside its calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from comity.errors import NodeDraining
from comity.transport.sending import OrderedSender, ahead

DEADLINE_S = 20.0


def test_what_is_sent_ahead_keeps_its_order() -> None:
    sent: list[int] = []
    sender = OrderedSender()
    for number in range(10):
        sender.put(lambda number=number: sent.append(number))  # type: ignore[misc]
    sender.finish()
    assert sent == list(range(10))


def test_whoever_makes_more_than_leaves_waits() -> None:
    gate, made = threading.Event(), list[int]()
    sender = OrderedSender()

    def make() -> None:
        for number in range(6):
            sender.put(lambda: gate.wait(DEADLINE_S))
            made.append(number)

    maker = threading.Thread(target=make)
    maker.start()
    maker.join(0.2)
    # One is on its way, and two wait.
    assert len(made) <= 3
    gate.set()
    maker.join(DEADLINE_S)
    sender.finish()
    assert len(made) == 6


def test_after_a_failure_nothing_more_is_sent() -> None:
    sent: list[str] = []

    def fail() -> None:
        raise ValueError("the first")

    sender = OrderedSender()
    sender.put(fail)
    with pytest.raises(ValueError, match="the first"):
        for _ in range(10):
            sender.put(lambda: sent.append("more"))
    with pytest.raises(ValueError, match="the first"):
        sender.finish()
    assert not sent


def test_what_is_left_of_a_line_that_is_closed_is_not_sent() -> None:
    gate, sent = threading.Event(), list[str]()
    sender = OrderedSender()
    sender.put(lambda: gate.wait(DEADLINE_S))
    sender.put(lambda: sent.append("late"))
    closing = threading.Thread(target=sender.abandon)
    closing.start()
    while sender._failure is None:
        pass
    gate.set()
    closing.join(DEADLINE_S)
    assert not sent
    with pytest.raises(NodeDraining):
        sender.put(lambda: sent.append("later"))


def test_work_is_done_while_nothing_has_come() -> None:
    gate, worked = threading.Event(), list[int]()

    def items() -> Iterator[str]:
        yield "first"
        assert gate.wait(DEADLINE_S)
        yield "second"

    def meanwhile() -> bool:
        worked.append(len(worked))
        if len(worked) == 3:
            gate.set()
        return len(worked) < 3

    assert list(ahead(items, meanwhile)) == ["first", "second"]
    assert worked[:3] == [0, 1, 2]


def test_what_following_ends_with_is_the_callers() -> None:
    def items() -> Iterator[str]:
        yield "first"
        raise ValueError("cut")

    following = ahead(items, lambda: False)
    assert next(following) == "first"
    with pytest.raises(ValueError, match="cut"):
        next(following)
