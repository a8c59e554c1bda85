"""A peer that is away: who calls it knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from comity.errors import PeerUnreachable, TooManyCalls
from comity.session.limits import Limits
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from comity.transport.status import from_rpc_error


def test_whoever_cannot_do_without_waits_as_long_as_the_node_does(
    connect: Callable[..., PeerConnection], method: Callable[..., Any], free_address: str
) -> None:
    connection = connect(free_address, retry=RetryPolicy(call_s=1.0, retry_s=0.2))
    told: list[object] = []
    connection.presence.on_change = told.append
    for _ in range(2):
        with pytest.raises(PeerUnreachable):
            connection.call(method(connection.channel), b"")
    assert [type(each) for each in told] == [PeerUnreachable], "once an absence"


def test_a_peer_that_comes_back_is_heard(
    echo: Callable[..., Any], connect: Callable[..., PeerConnection], method: Callable[..., Any], free_address: str
) -> None:
    connection = connect(free_address, retry=RetryPolicy(call_s=5.0, retry_s=30.0))
    told: list[object] = []

    def on_change(error: object) -> None:
        told.append(error)
        if error is not None:
            echo(address=free_address)

    connection.presence.on_change = on_change
    assert connection.call(method(connection.channel), b"hello") == b"hello"
    assert [each is None for each in told] == [False, True]
    assert not connection.presence.is_away


def test_a_peer_that_is_busy_is_there(
    echo: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    method: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes so many calls of a party at a time; whoever makes one more tries again."""
    held, free = threading.Event(), threading.Event()

    def hold(request: bytes, context: object) -> bytes:
        if request == b"first":
            held.set()
            assert free.wait(20)
        return request

    address = echo(hold, limits=Limits(calls_a_party=1)).address
    refused: list[object] = []
    told: list[object] = []

    def explain(failure: Any) -> Any:
        error = from_rpc_error(failure)
        refused.append(error)
        free.set()
        return error

    line = connect(address, retry=RetryPolicy(call_s=20.0, retry_s=20.0))
    line.presence.on_change = told.append
    monkeypatch.setattr(line, "_explain", explain)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(line.call, method(line.channel), b"first")
        assert held.wait(20)
        assert line.call(method(line.channel), b"second") == b"second"
        assert first.result(20) == b"first"
    assert {type(each) for each in refused} == {TooManyCalls}
    assert told == []
