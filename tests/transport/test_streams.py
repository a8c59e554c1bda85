"""Streams that grow hold no threads of the server, however many follow them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from comity.errors import RoundOutOfOrder
from comity.session.limits import Limits
from comity.session.replayable_stream import ReplayableStream
from comity.transport import retry as times
from comity.transport import streams
from comity.transport.addresses import split_address
from comity.transport.identity import PARTY_KEY
from comity.transport.server import NodeServer
from comity.transport.status import from_rpc_error
from comity.transport.streams import non_blocking
from tests.http2 import ACK, DATA, END_HEADERS, HEADERS, PING, PREFACE, frames
from tests.proxy import proxying

LIMITS = Limits()
CHANNELS = 12
"""More than those who read nothing: who reads has a line of its own."""
DEADLINE_S = 60.0
SETTINGS, INITIAL_WINDOW_SIZE, END_STREAM = 4, 4, 1


class Followed:
    """Somebody who follows a stream of bytes; see `Source`."""

    def __init__(self, stream: ReplayableStream[bytes]) -> None:
        self._stream = stream
        self._index = 0
        self._end: Callable[[], None] = lambda: None

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._end = self._stream.subscribe(notify)
        notify()

    def read(self) -> bytes | None:
        found = self._stream.read(self._index)
        if found is None:
            return None
        item, self._index = found
        return item

    def close(self) -> None:
        self._end()


@dataclass
class Served:
    """A server of one stream and one small call."""

    address: str
    stream: ReplayableStream[bytes]

    def subscribers(self) -> int:
        return len(self.stream._subscribers)


@pytest.fixture
def serving() -> Iterator[Served]:
    stream: ReplayableStream[bytes] = ReplayableStream()
    server = NodeServer(None, ["test.Streams"])

    @non_blocking
    def follow(request: bytes, context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        server.streams.serve(Followed(stream), context, send)

    handlers = {
        "Follow": grpc.unary_stream_rpc_method_handler(follow),
        "Call": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
    }
    server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Streams", handlers),))
    yield Served(server.start("127.0.0.1:0"), stream)
    stream.close()
    server.stop(0)


def as_party(name: str) -> tuple[tuple[str, str], ...]:
    return ((PARTY_KEY, name),)


@pytest.fixture
def follow(serving: Served) -> Iterator[Callable[..., Any]]:
    with ExitStack() as stack:
        # Each with a connection of its own: channels to one address share one otherwise.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 2**23)]
        channels = [stack.enter_context(grpc.insecure_channel(serving.address, options)) for _ in range(CHANNELS)]

        def begin(number: int, party: str = "") -> Any:
            method = channels[number % CHANNELS].unary_stream("/test.Streams/Follow")
            return method(b"", metadata=as_party(party or f"party-{number}"), timeout=DEADLINE_S)

        yield begin


def call(serving: Served) -> float:
    """Seconds until a small call is answered."""
    with grpc.insecure_channel(serving.address) as channel:
        method = channel.unary_unary("/test.Streams/Call")
        method(b"", metadata=as_party("caller"), timeout=DEADLINE_S)
        began = time.monotonic()
        assert method(b"it", metadata=as_party("caller"), timeout=DEADLINE_S) == b"it"
        return time.monotonic() - began


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def server_threads() -> int:
    return sum(each.name.startswith(("rpc", "stream")) for each in threading.enumerate())


@pytest.mark.parametrize("number_of_them", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_hundreds_follow_and_hold_no_thread(serving: Served, follow: Callable[..., Any], number_of_them: int) -> None:
    serving.stream.append(b"first")
    followers = [follow(number) for number in range(number_of_them)]
    assert {next(each) for each in followers} == {b"first"}
    assert serving.subscribers() == number_of_them
    # All of them wait, far more than the server has threads, and others are served.
    assert server_threads() <= LIMITS.calls + streams._SENDERS + 1
    assert call(serving) < 5.0
    serving.stream.append(b"second")
    assert {next(each) for each in followers} == {b"second"}
    # Who goes is forgotten.
    for each in followers[:100]:
        each.cancel()
    until(lambda: serving.subscribers() == number_of_them - 100)
    serving.stream.append(b"third")
    serving.stream.close()
    assert {tuple(each) for each in followers[100:]} == {(b"third",)}
    assert serving.subscribers() == 0


def test_a_stream_ends_with_its_error(serving: Served, follow: Callable[..., Any]) -> None:
    serving.stream.append(b"first")
    following = follow(0)
    assert next(following) == b"first"
    serving.stream.close(RoundOutOfOrder("it is over", expected="another", received="this", action="wait"))
    with pytest.raises(grpc.RpcError) as caught:
        next(following)
    error = from_rpc_error(caught.value)
    assert isinstance(error, RoundOutOfOrder)
    assert (error.expected, error.received, error.action) == ("another", "this", "wait")


def test_one_party_follows_only_so_much(
    serving: Served, follow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = LIMITS.streams_a_party
    serving.stream.append(b"first")
    followers = [follow(number, "greedy") for number in range(most)]
    assert {next(each) for each in followers} == {b"first"}
    with pytest.raises(grpc.RpcError) as caught:
        next(follow(most, "greedy"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert next(follow(most, "modest")) == b"first"
    # Whoever ends one may begin another.
    followers[0].cancel()

    def again() -> bool:
        try:
            return next(follow(most, "greedy")) == b"first"
        except grpc.RpcError:
            return False

    until(again)


@pytest.mark.timeout(60)
def test_who_stops_to_read_is_cut_and_holds_up_nobody(
    serving: Served, follow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STUCK_S", 0.4)
    serving.stream.append(b"first")
    # More of them than there are senders.
    stuck = [follow(number) for number in range(streams._SENDERS + 2)]
    assert {next(each) for each in stuck} == {b"first"}
    reader = follow(CHANNELS - 1)
    assert next(reader) == b"first"
    for _ in range(30):
        serving.stream.append(bytes(2**20))
    serving.stream.append(b"last")
    assert any(each == b"last" for each in reader)
    until(lambda: serving.subscribers() <= 1)
    for each in stuck:
        with pytest.raises(grpc.RpcError):
            list(each)


def test_who_reads_nothing_at_all_takes_few_of_those_who_send(
    serving: Served, follow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line may say that not one byte can be sent; nobody waits until its followers are cut."""
    monkeypatch.setattr(streams, "STUCK_S", 1000.0)
    serving.stream.append(b"first")
    with socket.create_connection(split_address(serving.address), timeout=DEADLINE_S) as line:
        line.sendall(PREFACE + frame(SETTINGS, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)))
        for number in range(3 * streams._SENDERS):
            stream = 2 * number + 1
            line.sendall(frame(HEADERS, headers("/test.Streams/Follow", "mallory"), END_HEADERS, stream))
            # An empty message, and no other.
            line.sendall(frame(DATA, bytes(5), END_STREAM, stream))
        until(lambda: serving.subscribers() >= streams._SENDERS_A_PARTY)
        for number in range(CHANNELS):
            assert next(follow(number)) == b"first"


def frame(kind: int, payload: bytes, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path: str, party: str) -> bytes:
    """Those of a call, in literals."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "hospital", "te": "trailers"}
    fields |= {"content-type": "application/grpc", PARTY_KEY: party}
    pairs = ((name.encode(), value.encode()) for name, value in fields.items())
    return b"".join(bytes([0, len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)


def test_whoever_waits_is_not_taken_for_one_who_pings_too_much(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A line on which nothing comes for long is kept by pings alone; a server takes three too soon for an attack."""
    monkeypatch.setattr(times, "KEEPALIVE_S", 0.4)
    serving: Served = request.getfixturevalue("serving")
    over = threading.Event()
    with proxying(serving.address) as line, grpc.insecure_channel(line.address, times.keepalive()) as channel:
        call = channel.unary_stream("/test.Streams/Follow")(b"", metadata=as_party("waiting"))
        assert call.add_callback(over.set)

        def pings() -> int:
            (connection,) = line.connections
            asked = bytes(connection.asked).removeprefix(PREFACE)
            return sum(kind == PING and not flags & ACK for kind, flags, _, _ in frames(asked))

        until(lambda: over.is_set() or (line.connections and pings() > 5))
        assert not over.is_set()
        serving.stream.append(b"at last")
        assert next(call) == b"at last"
        call.cancel()


class Lagging(streams._Turns):
    """Turns whose puts return late: whoever takes what was put is first."""

    def put(self, follower: Any) -> None:
        super().put(follower)
        threading.Event().wait(0.005)


def test_the_guard_knows_of_every_send_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the follower's next message is another thread's at once."""
    sending = streams.Streams()
    monkeypatch.setattr(sending, "_ready", Lagging())
    stream: ReplayableStream[bytes] = ReplayableStream()
    for number in range(20):
        stream.append(bytes([number]))
    stream.close()
    known, over = list[bool](), threading.Event()

    def send(message: bytes | None) -> None:
        threading.Event().wait(0.01)
        known.append(bool(sending._sending))
        if message is None:
            over.set()

    context: Any = SimpleNamespace(
        add_callback=lambda _: True,
        peer=lambda: "peer",
        cancel=lambda: None,
        auth_context=dict,
        invocation_metadata=tuple,
    )
    sending.serve(Followed(stream), context, send)
    assert over.wait(DEADLINE_S)
    sending.stop()
    assert known == [True] * 21
    assert not sending._sending
