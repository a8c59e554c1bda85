"""A peer that is away: who calls it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.errors import PeerUnreachable
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy


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
