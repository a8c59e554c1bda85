"""A watched log gives every follower every item, from where it left off, while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.session.replayable_stream import ReplayableStream, StreamEnd

DEADLINE_S = 10.0


@pytest.fixture
def followers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def filled(*items: int) -> ReplayableStream[int]:
    log: ReplayableStream[int] = ReplayableStream()
    for item in items:
        log.append(item)
    return log


@given(st.lists(st.integers()), st.integers(0, 12))
def test_a_closed_log_gives_what_was_not_skipped(items: list[int], skip: int) -> None:
    log = filled(*items)
    log.close()
    assert list(log.watch(skip)) == items[skip:]
    assert len(log) == len(items)
    assert [log[index] for index in range(len(log))] == items


def test_followers_get_items_as_they_come(followers: ThreadPoolExecutor) -> None:
    log = filled(0)
    got = Event()

    def follow(skip: int) -> list[int]:
        items = []
        for item in log.watch(skip):
            items.append(item)
            if item == 1:
                got.set()
        return items

    following = [followers.submit(follow, skip) for skip in (0, 1, 3)]
    log.append(1)
    # Item 1 arrives before the next is there.
    assert got.wait(DEADLINE_S)
    log.append(2)
    log.append(3)
    log.close()
    assert [each.result(DEADLINE_S) for each in following] == [[0, 1, 2, 3], [1, 2, 3], [3]]


def test_closing_with_an_error_ends_followers_with_it_after_the_last_item(followers: ThreadPoolExecutor) -> None:
    log = filled(0)
    got: list[int] = []
    following = followers.submit(lambda: got.extend(log.watch()))
    log.append(1)
    log.close(KeyError("broken"))
    with pytest.raises(KeyError, match="broken"):
        following.result(DEADLINE_S)
    again = log.watch()
    assert [next(again), next(again)] == [0, 1]
    with pytest.raises(KeyError, match="broken"):
        next(again)
    with pytest.raises(KeyError, match="broken"):
        list(log.watch(7))


def test_the_first_close_counts() -> None:
    log = filled(0)
    log.close()
    log.close(KeyError("late"))
    assert log.closed
    assert list(log.watch()) == [0]


def test_a_subscriber_is_called_and_reads() -> None:
    log, calls = filled(0, 1), list[int]()
    end = log.subscribe(lambda: calls.append(len(log)))
    assert log.read(0) == (0, 1)
    assert log.read(1) == (1, 2)
    assert log.read(2) is None
    log.append(2)
    assert calls == [3]
    assert log.read(2) == (2, 3)
    log.close()
    assert calls == [3, 3]
    with pytest.raises(StreamEnd):
        log.read(3)
    end()
    log.close()
    assert calls == [3, 3]
    # What is there can be read after the end as well.
    assert log.read(1) == (1, 2)


def test_a_subscriber_is_told_why_there_is_no_more() -> None:
    log = filled(0)
    log.close(ValueError("broken"))
    assert log.read(0) == (0, 1)
    with pytest.raises(ValueError, match="broken"):
        log.read(1)


def test_what_is_no_news_any_more_is_withdrawn() -> None:
    log = filled(0, 1)
    log.show([1, 5])
    assert log.read(0) == (1, 2)
    assert log.read(2) == (5, 3)
    log.show([5])
    assert log.read(0) == (5, 3)
    log.show([7])
    assert log.read(0) == (7, 4)
    # Who has it is not told again.
    log.show([7])
    assert log.read(4) is None
    with pytest.raises(IndexError):
        log[0]
