"""The clients of a server under load, in processes of their own: those that watch, and those that have sessions."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2

from comity.data import DataConfig, load_data
from comity.node.party import LocalParty
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.initiator import draft_contract, run_session, stored
from comity.node.sessions.script import Script
from comity.session.events import Event
from comity.session.waiting import Waits
from comity.simulation.forking import context
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.transport import health, sessions
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy

_PROCESSES = 4
_THREADS = 16
_WATCH = f"/{health.SERVICE}/Watch"
_OPEN_S, _TOLD_S = 120.0, 20.0
_PATIENT = RetryPolicy(call_s=60.0, retry_s=60.0)


class _Processes:
    """Processes that each do what they are told by a pipe."""

    def __init__(self, work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        self.pipes: list[Connection] = []
        self._processes = []
        for each in arguments:
            here, there = context().Pipe()
            process = context().Process(target=work, args=(there, *each), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self._processes.append(process)

    def answers(self, seconds: float) -> list[Any]:
        """What each of them says next."""
        found = []
        for pipe in self.pipes:
            if not pipe.poll(seconds):
                raise AssertionError("a process of clients does not answer")
            said = pipe.recv()
            if isinstance(said, Exception):
                raise said
            found.append(said)
        return found

    def end(self) -> None:
        """Ends them."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()


class Watchers:
    """Clients that watch a server, each on a connection of its own.

    Args:
        identity: Who they are.
        party: The server's party.
        address: Where it listens.
        count: How many they are.
    """

    def __init__(self, identity: Identity, party: str, address: str, count: int) -> None:
        shares = [count // _PROCESSES + (number < count % _PROCESSES) for number in range(_PROCESSES)]
        self._arguments = [(identity, party, address, share) for share in shares]
        self._processes: _Processes | None = None

    def open(self) -> float:
        """Has all of them watch; returns how long it took until each was told that the server serves, in seconds."""
        self._processes = _Processes(_watch, self._arguments)
        seconds: float = max(self._processes.answers(_OPEN_S))
        return seconds

    def told_by(self, act: Callable[[], None]) -> int:
        """How many are told of something, which the server does after an act."""
        if self._processes is None:
            raise AssertionError("nobody watches")
        act()
        return sum(self._processes.answers(_TOLD_S + 10))

    def close(self) -> None:
        """Has all of them go."""
        if self._processes is not None:
            self._processes.end()
            self._processes = None


def _watch(pipe: Connection, identity: Identity, party: str, address: str, count: int) -> None:
    asyncio.run(_watching(pipe, identity, party, address, count))


async def _watching(pipe: Connection, identity: Identity, party: str, address: str, count: int) -> None:
    credentials = identity.client_credentials(party)
    options = [
        ("grpc.ssl_target_name_override", party),
        ("grpc.default_authority", party),
        # Else they would share a connection.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    channels = [grpc.aio.secure_channel(address, credentials, options) for _ in range(count)]
    began = time.perf_counter()

    async def begin(channel: grpc.aio.Channel) -> Any:
        watch = channel.unary_stream(
            _WATCH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        call = watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        await call.read()
        return call

    calls = await asyncio.gather(*map(begin, channels))
    pipe.send(time.perf_counter() - began)

    async def told(call: Any) -> bool:
        return isinstance(await call.read(), health_pb2.HealthCheckResponse)

    waiting = [asyncio.create_task(told(call)) for call in calls]
    await asyncio.wait(waiting)
    pipe.send(sum(each.exception() is None and each.result() for each in waiting))


class Initiators:
    """Parties that have sessions with a server.

    Args:
        script: The session.
        identities: Who they are.
        address: Where the server listens.
    """

    def __init__(self, script: Script, identities: Sequence[Identity], address: str) -> None:
        self._identities = identities
        self._script = script
        self._address = address
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        """Starts their processes."""
        text = self._script.model_dump_json()
        self._processes = _Processes(_initiate, [(text, self._identities, self._address)] * _PROCESSES)
        self._processes.answers(_OPEN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends them."""
        self._processes.end()

    def run(self, count: int, *, at_once: bool) -> list[float]:
        """Runs sessions, and returns how long each took, in seconds.

        Args:
            count: How many.
            at_once: Whether all begin at the same time; otherwise each when the one before it has ended.
        """
        # Of those at once no two are one party's.
        names = [(f"load-{next(self._numbers)}", number % len(self._identities)) for number in range(count)]
        pipes = self._processes.pipes
        if not at_once:
            seconds = []
            for number, name in enumerate(names):
                pipes[number % len(pipes)].send([name])
                seconds += self._answer(pipes[number % len(pipes)])
            return seconds
        for number, pipe in enumerate(pipes):
            pipe.send(names[number :: len(pipes)])
        return [each for pipe in pipes for each in self._answer(pipe)]

    def _answer(self, pipe: Connection) -> list[float]:
        if not pipe.poll(600):
            raise AssertionError("sessions do not end")
        said = pipe.recv()
        if isinstance(said, Exception):
            raise said
        seconds: list[float] = said
        return seconds


def _initiate(pipe: Connection, text: str, identities: Sequence[Identity], address: str) -> None:
    """Runs the sessions that it is told, those of one message at once."""
    script = Script.model_validate_json(text)
    (acceptor,) = script.session.acceptors
    (name,) = script.party.keys() - {acceptor}
    section = script.party[name]
    # Read once: a session's data are not what is measured.
    data = load_data(section.data) if isinstance(section.data, DataConfig) else section.data
    config = section.model_copy(update={"data": data})

    def run(asked: tuple[str, int]) -> float:
        session, number = asked
        identity = identities[number]
        began = time.perf_counter()
        party = LocalParty(identity.party, config, GivenSecrets(session.encode()), MemoryStore())
        contract, definition = draft_contract(script, party, session)
        own = party.membership(definition.initiator, contract)
        party.store.save(stored(contract, own))
        with PeerConnection(identity, acceptor, address, _PATIENT) as connection:
            waits = Waits(party.store, session)
            negotiation = Negotiation(contract, definition, party, own, waits, time.sleep)
            run_session(negotiation, [connection], _unseen)
            sessions.end(connection, "finished")
        return time.perf_counter() - began

    with ThreadPoolExecutor(_THREADS) as pool:
        pipe.send(None)
        while True:
            names = pipe.recv()
            try:
                pipe.send(list(pool.map(run, names)))
            except Exception as error:  # noqa: BLE001 - raised where the sessions are asked for
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _unseen(event: Event) -> None:
    del event
