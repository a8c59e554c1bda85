"""What a server gives at most: nobody who holds calls, streams or connections keeps the others out."""

from __future__ import annotations

import gc
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from comity.errors import PeerUnreachable, StorageFailed, TooManyCalls
from comity.session.limits import Limits
from comity.transport import retry as times
from comity.transport.addresses import split_address
from comity.transport.diagnosis import diagnose
from comity.transport.identity import PARTY_KEY, Identity
from comity.transport.server import NodeServer, most_connections
from comity.transport.status import from_rpc_error
from tests.proxy import Proxy

DEADLINE_S = 60.0
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins."""
MAX_CONCURRENT_STREAMS = 3
"""Of the settings that its server answers with."""


@dataclass
class Held:
    """A server whose calls last as long as the test wants, and whose uploads as long as they come."""

    address: str = ""
    release: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def hold(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.begun.release()
        self.release.wait(DEADLINE_S)
        return request

    def take(self, pieces: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self.begun.release()
        try:
            return b"".join(pieces)
        finally:
            self.ended.release()


@pytest.fixture
def holding() -> Iterator[Callable[..., Held]]:
    with ExitStack() as stack:

        def start(**limits: Any) -> Held:
            held = Held()
            server = NodeServer(None, ["test.Held"], limits=Limits(**limits))
            handlers = {
                "Hold": grpc.unary_unary_rpc_method_handler(held.hold),
                "Call": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
                "Take": grpc.stream_unary_rpc_method_handler(held.take),
                "Give": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request])),
            }
            server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Held", handlers),))
            held.address = server.start("127.0.0.1:0")
            stack.callback(server.stop, 0)
            stack.callback(held.release.set)
            return held

        yield start


@pytest.fixture
def channel() -> Iterator[Callable[[str], grpc.Channel]]:
    with ExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        yield lambda address: stack.enter_context(grpc.insecure_channel(address, options))


def as_party(name: str) -> Any:
    return ((PARTY_KEY, name),)


def call(address: str, party: str) -> bytes:
    with grpc.insecure_channel(address) as channel:
        answer: bytes = channel.unary_unary("/test.Held/Call")(b"it", metadata=as_party(party), timeout=DEADLINE_S)
        return answer


def endless(stop: threading.Event) -> Iterator[bytes]:
    """An upload that stands still after its first piece."""
    yield b"x"
    stop.wait(DEADLINE_S)


def test_the_last_places_are_for_those_who_have_none(holding: Callable[..., Held], channel: Any) -> None:
    held = holding(calls=4, calls_a_party=4)
    method = channel(held.address).unary_unary("/test.Held/Hold")
    waiting = [method.future(b"", metadata=as_party("greedy"), timeout=DEADLINE_S) for _ in range(3)]
    for _ in waiting:
        assert held.begun.acquire(timeout=DEADLINE_S)
    with pytest.raises(grpc.RpcError) as caught:
        call(held.address, "greedy")
    assert isinstance(from_rpc_error(caught.value), TooManyCalls)
    assert call(held.address, "modest") == b"it"


def test_health_is_followed_by_hundreds_without_a_thread(holding: Callable[..., Held], channel: Any) -> None:
    held = holding(calls=4)
    request = health_pb2.HealthCheckRequest()
    followers = [
        health_pb2_grpc.HealthStub(channel(held.address)).Watch(request, metadata=as_party(party), timeout=DEADLINE_S)
        for party in ("mallory", "stranger")
        for _ in range(40)
    ]
    assert {next(each).status for each in followers} == {health_pb2.HealthCheckResponse.SERVING}
    assert call(held.address, "honest") == b"it"
    for each in followers:
        each.cancel()


def test_health_of_what_is_not_there_is_unknown_and_may_be_followed(holding: Callable[..., Held], channel: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel(holding().address))
    following = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=DEADLINE_S)
    assert next(following).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    following.cancel()


def test_uploads_that_stand_still_are_cut(holding: Callable[..., Held], channel: Any) -> None:
    held = holding(grace_s=0.5)
    stop = threading.Event()
    upload = channel(held.address).stream_unary("/test.Held/Take").future(endless(stop), metadata=as_party("mallory"))
    assert held.begun.acquire(timeout=DEADLINE_S)
    assert held.ended.acquire(timeout=DEADLINE_S)
    # Whoever was too slow tries again, and goes on where it was.
    assert isinstance(from_rpc_error(upload.exception()), PeerUnreachable)
    stop.set()


def test_questions_that_are_never_asked_are_cut(holding: Callable[..., Held], channel: Any) -> None:
    """Reflection takes a stream of questions, and holds a thread for it."""
    held = holding(grace_s=0.5)
    stop = threading.Event()

    def nothing() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        stop.wait(DEADLINE_S)
        yield from ()

    stub = reflection_pb2_grpc.ServerReflectionStub(channel(held.address))
    with pytest.raises(grpc.RpcError):
        next(stub.ServerReflectionInfo(nothing(), metadata=as_party("mallory"), timeout=DEADLINE_S))
    stop.set()


@pytest.mark.parametrize("keepalive_s", [1.0, pytest.param(times.KEEPALIVE_S, marks=pytest.mark.slow)])
def test_the_place_of_a_caller_that_is_gone_without_a_word_is_free(
    holding: Callable[..., Held], channel: Any, monkeypatch: pytest.MonkeyPatch, keepalive_s: float
) -> None:
    """Nothing comes from it, not even an end; the server asks whether it is there, and gives its place away."""
    if keepalive_s != times.KEEPALIVE_S:
        monkeypatch.setattr(times, "KEEPALIVE_S", keepalive_s)
        monkeypatch.setattr(times, "SILENCE_S", keepalive_s)
    expected_s = times.KEEPALIVE_S + times.SILENCE_S
    held = holding(grace_s=1000.0, calls_a_party=1)
    proxy, stop = Proxy(held.address), threading.Event()
    method = channel(proxy.address).stream_unary("/test.Held/Take")
    upload = method.future(endless(stop), metadata=as_party("clinic"), timeout=DEADLINE_S)
    assert held.begun.acquire(timeout=DEADLINE_S)
    proxy.hush()
    began = time.monotonic()
    with pytest.raises(grpc.RpcError):
        call(held.address, "clinic")
    assert held.ended.acquire(timeout=DEADLINE_S)
    # By its own timer gRPC would take a minute and more.
    assert time.monotonic() - began < expected_s + 10.0
    assert call(held.address, "clinic") == b"it"
    stop.set()
    upload.cancel()
    proxy.stop()


def test_callers_that_wait_for_long_are_not_sent_away(
    holding: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They send nothing but pings, as often as they like up to what the server asks for itself."""
    monkeypatch.setattr(times, "KEEPALIVE_S", 0.4)
    held = holding()
    options = [("grpc.keepalive_time_ms", 400), ("grpc.http2.max_pings_without_data", 0)]
    with grpc.insecure_channel(held.address, options) as channel:
        waiting = channel.unary_unary("/test.Held/Hold").future(b"it", timeout=DEADLINE_S)
        assert held.begun.acquire(timeout=DEADLINE_S)
        threading.Event().wait(4.0)
        held.release.set()
        assert waiting.result() == b"it"


def test_a_line_that_is_closed_for_its_pings_is_named() -> None:
    said = "GOAWAY received; Error code: 11; Debug Text: too_many_pings"
    error = diagnose("127.0.0.1:1", "hospital", Identity("clinic"), said)
    assert isinstance(error, PeerUnreachable)
    assert "every 20 s" in str(error)
    assert "certificate" not in str(error)


def test_connections_without_calls_are_closed(holding: Callable[..., Held]) -> None:
    held = holding(idle_s=0.5)
    with grpc.insecure_channel(held.address) as channel:
        idle = threading.Event()
        assert channel.unary_unary("/test.Held/Call")(b"it", timeout=DEADLINE_S) == b"it"

        def changed(state: grpc.ChannelConnectivity) -> None:
            if state is grpc.ChannelConnectivity.IDLE:
                idle.set()

        channel.subscribe(changed)
        assert idle.wait(DEADLINE_S)
        # The next call opens another.
        assert channel.unary_unary("/test.Held/Call")(b"it", timeout=DEADLINE_S) == b"it"
        channel.unsubscribe(changed)


def test_callers_that_never_say_who_they_are_are_hung_up_on(issue: Callable[..., Identity]) -> None:
    server = NodeServer(issue("hospital"), [], limits=Limits(handshake_s=1.0))
    address = server.start("127.0.0.1:0")
    try:
        with socket.create_connection(split_address(address), timeout=DEADLINE_S) as silent:
            assert silent.recv(1) == b""
    finally:
        server.stop(0)


@pytest.mark.parametrize("path", ["/test.Held/Call", "/test.Held/Give", f"/{health.SERVICE_NAME}/Watch"])
def test_calls_that_never_say_what_they_want_keep_nobody_out(
    holding: Callable[..., Held], channel: Any, path: str
) -> None:
    """Their headers come, and no request: of two parties, and many more than there are threads, for as long as they like."""
    held = holding(calls=8, calls_a_party=4, grace_s=1000.0)
    stop = threading.Event()

    def nothing() -> Iterator[bytes]:
        stop.wait(DEADLINE_S)
        yield from ()

    silent = [
        channel(held.address).stream_stream(path)(nothing(), metadata=as_party(party), timeout=DEADLINE_S)
        for party in ("mallory", "stranger")
        for _ in range(12)
    ]
    for _ in range(20):
        assert call(held.address, "honest") == b"it"
    stop.set()
    # Who ends without a request is told so.
    answers = {refused.code() for refused in map(ending, silent)}
    assert answers <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}, answers
    for party in ("mallory", "honest"):
        assert call(held.address, party) == b"it"


def ending(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value


def test_only_so_many_connections_take_the_nodes_files(holding: Callable[..., Held], channel: Any) -> None:
    """Those beyond are closed at once; who is connected stays, and when they go others come in."""
    held = holding(connections=8)
    before = channel(held.address).unary_unary("/test.Held/Call")
    assert before(b"it", timeout=DEADLINE_S) == b"it"
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(split_address(held.address))) for _ in range(40)]
        for each in opened:
            each.settimeout(DEADLINE_S)
            each.sendall(HELLO)
        # One that is taken is sent settings.
        assert sum(is_served(each) for each in opened) == 7
        assert before(b"it", timeout=DEADLINE_S) == b"it"
    # Once the server has seen that they are gone.
    another = channel(held.address).unary_unary("/test.Held/Call")
    assert another(b"it", timeout=DEADLINE_S, wait_for_ready=True) == b"it"


def test_one_line_brings_only_so_many_calls_at_a_time(holding: Callable[..., Held]) -> None:
    """More wait at the caller's end, in nobody's way: thousands that are refused one by one would hold up who comes after."""
    held = holding(streams_a_party=10, calls_a_party=4)
    with socket.create_connection(split_address(held.address), timeout=DEADLINE_S) as line:
        line.sendall(HELLO)
        with line.makefile("rb") as answer:
            length = int.from_bytes(answer.read(9)[:3], "big")
            settings = dict(struct.iter_unpack(">HI", answer.read(length)))
    assert settings[MAX_CONCURRENT_STREAMS] == 18


def is_served(connection: socket.socket) -> bool:
    """Whether a server says anything on a connection before it closes it."""
    try:
        return connection.recv(1) != b""
    except ConnectionError:
        return False


def test_connections_leave_a_node_files_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((1024, 768), (300, 150), (resource.RLIM_INFINITY, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert most_connections(Limits()) == most
        assert most_connections(Limits(connections=10)) == 10


def test_a_proxy_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, free_address: str) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    unreached = "failed to connect to all addresses"
    assert "proxy" not in str(diagnose(free_address, "hospital", Identity("clinic"), unreached))
    monkeypatch.setenv("http_proxy", "http://user:hidden@proxy.example.org:3128")
    line = str(diagnose(free_address, "hospital", Identity("clinic"), unreached))
    assert "http_proxy of the environment" in line
    assert "no_proxy=127.0.0.1" in line
    assert "hidden" not in line
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "proxy" not in str(diagnose(free_address, "hospital", Identity("clinic"), unreached))


def test_where_a_node_keeps_what_is_told_to_nobody(echo: Callable[..., Any], method: Callable[..., Any]) -> None:
    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise StorageFailed("/srv/comity/state/blobs cannot be kept", expected="space", received="No space left")

    with grpc.insecure_channel(echo(fail).address) as channel, pytest.raises(grpc.RpcError) as caught:
        method(channel)(b"", timeout=DEADLINE_S)
    error = from_rpc_error(caught.value)
    assert isinstance(error, StorageFailed)
    assert "/srv" not in str(error)


@pytest.mark.parametrize("kind", ["followed", "malformed", "malformed and followed", "empty"])
def test_nothing_stays_of_a_call_that_is_over(holding: Callable[..., Held], channel: Any, kind: str) -> None:
    """Neither for good, nor until Python looks for what holds itself: what grpc has of a call takes twenty kilobytes."""
    line = channel(holding().address)
    watch, check = (line.stream_stream(f"/{health.SERVICE_NAME}/{name}") for name in ("Watch", "Check"))
    method = check if kind == "malformed" else watch

    def make() -> None:
        call = method(iter([b"\xff" * 9] if "malformed" in kind else [b""] * (kind == "followed")), timeout=DEADLINE_S)
        if kind == "followed":
            next(call)
            call.cancel()
        else:
            assert ending(call).code() is grpc.StatusCode.INVALID_ARGUMENT

    gc.collect()
    gc.disable()
    try:
        for _ in range(60):
            make()
        deadline = time.monotonic() + DEADLINE_S
        # Threads that wait for work have the last one that they did.
        while (kept := sum(type(each) is grpc._server._RPCState for each in gc.get_objects())) > 20:
            assert time.monotonic() < deadline, f"{kept} are kept"
            threading.Event().wait(0.05)
    finally:
        gc.enable()


HELD = 48
"""Connections that a flooded server takes."""


@pytest.fixture
def flooded(issue: Callable[..., Identity]) -> Iterator[tuple[str, Callable[[str], grpc.Channel]]]:
    """A server with TLS that takes few connections: its address, and what opens a party's line of its own to it."""
    with ExitStack() as stack:
        identities = {name: issue(name) for name in ("hospital", "clinic", "mallory", "late")}
        server = NodeServer(identities["hospital"], ["test.Held"], limits=Limits(connections=HELD, calls_a_party=HELD))
        handlers = {"Call": grpc.unary_unary_rpc_method_handler(lambda _, context: context.peer().encode())}
        server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Held", handlers),))
        address = server.start("127.0.0.1:0")
        stack.callback(server.stop, 0)

        def line(party: str) -> grpc.Channel:
            options = [
                ("grpc.ssl_target_name_override", "hospital"),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", times.milliseconds(times.FIRST_PAUSE_S)),
                ("grpc.max_reconnect_backoff_ms", times.milliseconds(times.LONGEST_PAUSE_S)),
            ]
            credentials = identities[party].client_credentials("hospital")
            return stack.enter_context(grpc.secure_channel(address, credentials, options))

        yield address, line


def asked(channel: grpc.Channel) -> bytes:
    """Where a server sees a line come from."""
    method = channel.unary_unary("/test.Held/Call")
    answer: bytes = method(b"it", timeout=DEADLINE_S, wait_for_ready=True)
    return answer


@pytest.mark.parametrize("is_trusted", [False, True], ids=["stranger", "trusted"])
def test_whoever_opens_connections_without_end_keeps_nobody_out(flooded: Any, is_trusted: bool) -> None:
    """Neither from the address that the honest come from, nor with a certificate: all that there are, again and again."""
    address, line = flooded
    before, stop, opened = line("clinic"), threading.Event(), threading.Semaphore(0)
    place = asked(before)

    def flood() -> None:
        lines: list[socket.socket | grpc.Channel] = []
        while not stop.wait(0.002):
            if is_trusted:
                lines.append(line("mallory"))
                lines[-1].unary_unary("/test.Held/Call").future(b"", timeout=DEADLINE_S)
            else:
                with suppress(OSError):
                    lines.append(socket.create_connection(split_address(address), timeout=DEADLINE_S))
            opened.release()
        for each in lines:
            each.close()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(2 * HELD):
            assert opened.acquire(timeout=DEADLINE_S)
        for _ in range(5):
            asked(line("late"))
        # Who was there before was not disturbed.
        assert asked(before) == place
    finally:
        stop.set()
        thread.join(DEADLINE_S)
