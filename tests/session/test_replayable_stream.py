"""A watched log gives every follower every item, from where it left off, while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.session.replayable_stream import ReplayableStream

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


def test_a_follower_that_nobody_waits_for_ends(followers: ThreadPoolExecutor) -> None:
    log = filled(0)
    active = Event()
    active.set()
    asked = Event()

    def is_active() -> bool:
        asked.set()
        return active.is_set()

    following = followers.submit(lambda: list(log.watch(is_active=is_active)))
    assert asked.wait(DEADLINE_S)
    active.clear()
    assert following.result(DEADLINE_S) == [0]
    assert not log.closed
