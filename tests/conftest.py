"""What tests share: nothing is left behind, and small sessions to work on."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium  # noqa: F401 - sets a variable of the environment when it is imported first
import psutil
import pytest
import structlog
import torch
from hypothesis import settings

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import WEEK_S, Contract, Membership, ModelSpec
from comity.ledger.receipts import Signer
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import ignore
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.session.receipt_book import ReceiptBook, record_opening
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.waiting import Waits
from comity.session.worker import SessionWorker, Steppable
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.tasks.classification import classification
from comity.transport import blobs, sessions
from comity.transport.bindings.servicer import serve as derived
from comity.transport.description import Describe, describing
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from comity.transport.server import NodeServer
from comity.wire.v1 import sessions_pb2_grpc
from tests.packages.installation import install, make_known
from tests.proxy import Proxy, cut_after

# Everything is in memory where there is enough of it: to wait for a disk at each of many thousand commits shows nothing.
if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 4 << 30:
    os.environ.setdefault("TMPDIR", "/dev/shm")

# Whoever started this in the background may have had interrupts ignored, and processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


INSTALLED = "PYTEST_INSTALLED"
"""Environment variable that tells workers where packages are installed."""


def pytest_configure(config: pytest.Config) -> None:
    """Installs the protocols of packages beside the tests, once for all workers."""
    if not hasattr(config, "workerinput"):
        folder = TemporaryDirectory(prefix="installed-")
        config.add_cleanup(folder.cleanup)
        install(Path(folder.name))
        os.environ[INSTALLED] = folder.name
    make_known(Path(os.environ[INSTALLED]))


settings.register_profile("fast", deadline=None, max_examples=30)
settings.register_profile("deep", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors here are tiny: threads that wait for each other cost more than they do, above all beside other workers."""
    torch.set_num_threads(1)


PATIENCE_S = 5.0
"""How long what a test started may take to end."""
SET_BY_LIBRARIES = ("PYTEST_", "KMP_", "TORCHINDUCTOR_")
"""Environment variables that pytest, scikit-learn and torch set when they are first used."""


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    """All processes below one; Linux tells without a look at every process there is, which thousands of tests would pay for."""
    try:
        lists = [each.read_text() for each in Path(f"/proc/{process.pid}/task").glob("*/children")]
    except OSError:
        lists = []
    if not lists:
        return process.children(recursive=True)
    found = []
    for number in " ".join(lists).split():
        with suppress(psutil.Error):
            child = psutil.Process(int(number))
            found += [child, *_descendants(child)]
    return found


def stays(process: psutil.Process) -> bool:
    """Whether multiprocessing keeps it for later: the server that it forks from, and who tidies up after that."""
    with suppress(psutil.Error):
        # Not those that are forked from it: they have its command line, and another parent.
        mine = process.ppid() == os.getpid()
        return mine and any("forkserver" in each or "resource_tracker" in each for each in process.cmdline())
    return False


@dataclass(frozen=True)
class Surroundings:
    """What a test could leave behind."""

    threads: frozenset[threading.Thread]
    children: frozenset[psutil.Process]
    ports: frozenset[int]
    environment: dict[str, str]

    @classmethod
    def now(cls) -> Surroundings:
        process = psutil.Process()
        # Threads that torch or grpc made outside of Python appear as dummies and belong to nobody.
        threads = (each for each in threading.enumerate() if not isinstance(each, threading._DummyThread))
        listening = (each for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_LIBRARIES)}
        # Daemons are forked from a process that stays.
        children = (each for each in _descendants(process) if not stays(each))
        return cls(
            frozenset(threads),
            frozenset(children),
            frozenset(each.laddr.port for each in listening),
            environment,
        )

    def left_behind(self) -> list[str]:
        """What is there now and was not then, in words; threads and processes get a while to end."""
        deadline = time.monotonic() + PATIENCE_S
        new = Surroundings.now()
        for thread in new.threads - self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        psutil.wait_procs(new.children - self.children, timeout=max(0.0, deadline - time.monotonic()))
        new = Surroundings.now()
        found = [f"thread {thread.name}" for thread in new.threads - self.threads]
        found += [f"process {child.pid}" for child in new.children - self.children]
        found += [f"listener on port {port}" for port in new.ports - self.ports]
        changed = {name for name, _ in self.environment.items() ^ new.environment.items()}
        return found + [f"environment variable {name}" for name in sorted(changed)]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = Surroundings.now()
    yield
    # A command that was run here has set up this process's logs.
    structlog.reset_defaults()
    left = before.left_behind()
    assert not left, f"the test left behind: {', '.join(left)}"


def _made_up() -> ProtocolDefinition:
    """The protocol of the sessions here: of a package, so that nothing is shown of one of this project's alone."""
    return protocol("teacher_votes")


def _make_contract(**changes: Any) -> Contract:
    definition = _made_up()
    values: dict[str, Any] = {
        "protocol": definition.name,
        "version": definition.version,
        "session": "s-1",
        "seed": 7,
        "rounds": 3,
        "models": {"student": ModelSpec(name="mlp", options={"hidden": 8}, signature="0" * 64)},
        "task": classification((1, 8, 8), 10),
        "max_silence_s": WEEK_S,
        "initiator": "clinic",
        "acceptors": ("hospital",),
        "egress": definition.egress_of(definition.terms()),
        "terms": definition.terms(),
    }
    return Contract(**(values | changes))


@pytest.fixture(scope="session")
def make_contract() -> Callable[..., Contract]:
    """A contract between clinic and hospital, with any of its fields replaced."""
    return _make_contract


@dataclass(frozen=True)
class Pair:
    """Both peer_contexts of one session, and the stores behind them."""

    initiator: PeerContext
    acceptor: PeerContext
    initiator_store: MemoryStore
    acceptor_store: MemoryStore


def _make_signer(party: str) -> Signer:
    return Signer.from_seed(party.encode().ljust(32, b"-"), party)


@pytest.fixture(scope="session")
def make_signer() -> Callable[[str], Signer]:
    """A party's key; the same one for the same name."""
    return _make_signer


def _make_member(party: str, role: str, samples: int) -> Membership:
    return Membership(party=party, role=role, samples=samples, receipt_key=_make_signer(party).public_key)


@pytest.fixture(scope="session")
def make_member() -> Callable[[str, str, int], Membership]:
    """A party's part in a session, with its key."""
    return _make_member


def _make_pair(**changes: Any) -> Pair:
    contract = _make_contract(**changes)
    definition = protocol(contract.protocol)
    clinic = _make_member("clinic", definition.initiator, 10)
    hospital = _make_member("hospital", definition.acceptor, 10)
    stores = MemoryStore(), MemoryStore()
    return Pair(
        _peer_context(contract, clinic, hospital, stores[0]),
        _peer_context(contract, hospital, clinic, stores[1]),
        *stores,
    )


def _peer_context(contract: Contract, own: Membership, peer: Membership, store: MemoryStore) -> PeerContext:
    record_opening(store, contract, own, peer)
    gate = EgressGate(contract, Policy(egress=contract.egress), store, peer.party)
    receipt_book = ReceiptBook(_make_signer(own.party), store, contract, peer)
    blobs, journal, waits = SessionBlobs(), Journal(store, contract.session), Waits(store, contract.session)
    place = SessionContext(contract, own, None, blobs, journal, ignore, waits)
    return PeerContext(place, peer, blobs, gate, receipt_book)


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., Pair]:
    """Both peer_contexts of a session in which nobody does anything; keywords go to the contract."""
    return _make_pair


@dataclass(frozen=True)
class Host:
    """A helping node that serves sessions."""

    address: str
    sessions: SessionRegistry
    server: NodeServer


def _describe() -> Describe:
    """What the hospital says of itself."""
    definition = _made_up()
    return describing("hospital", definition.acceptor, {definition.name: definition.version})


class NoNewSessions:
    """Decides nothing: the sessions are there already."""

    def __init__(self, hosted: SessionRegistry) -> None:
        self._hosted = hosted

    def accept(self, caller: str, proposal: object) -> AcceptedSession:
        raise AssertionError(f"{caller} proposes {proposal}")

    def review(self, caller: str, draft: object) -> Any:
        raise AssertionError(f"{caller} asks about {draft}")

    def fetch(self, session: str) -> Any:
        raise AssertionError(f"somebody asks for {session}")

    def gate(self, contract: Contract, party: str) -> Any:
        raise AssertionError(f"{party} asks for {contract.session}")

    def finish(self, session: AcceptedSession, ending: str) -> None:
        self._hosted.remove(session.contract.session)

    def withdraw(self, caller: str, session: str, contract_hash: str, ending: str) -> None:
        """Nobody has anything to decide on."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Host]]:
    """Serves sessions, each given as the acceptor's peer_context and role, on loopback with the real services."""
    with ExitStack() as stack:

        def start(
            *peer_contexts: tuple[PeerContext, Steppable],
            identity: Identity | None = None,
            address: str = "127.0.0.1:0",
            describe: Describe | None = None,
        ) -> Host:
            hosted = SessionRegistry()
            stack.callback(hosted.drain)
            workers: dict[int, SessionWorker] = {}
            for peer_context, role in peer_contexts:
                if id(role) not in workers:
                    workers[id(role)] = SessionWorker(role, peer_context.contract.session)
                hosted.add(AcceptedSession(peer_context, role, workers[id(role)]))
            names = {peer_context.contract.protocol for peer_context, _ in peer_contexts} or {_made_up().name}
            services = {name: protocol(name).load().service for name in names}
            server = NodeServer(identity, [sessions.SERVICE, blobs.SERVICE, *(each.name for each in services.values())])

            servicer = sessions.SessionsServicer(
                hosted, NoNewSessions(hosted), _make_signer("hospital"), describe or _describe()
            )
            sessions_pb2_grpc.add_SessionsServicer_to_server(servicer, server.server)
            blobs.BlobServicer(lambda context: sessions.session_of(hosted, context)).add_to(server.server)
            for name, service in services.items():
                derived(service, name, hosted, server.server, server.streams)
            host = Host(server.start(address), hosted, server)
            stack.callback(server.stop, 0)
            # What is on ends first, so that nobody waits for it.
            stack.callback(hosted.drain)
            return host

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., PeerConnection]]:
    """Opens a line to hospital as clinic."""
    with ExitStack() as stack:

        def start(
            address: str,
            *,
            identity: Identity | None = None,
            party: str = "hospital",
            contract: Contract | None = None,
            retry: RetryPolicy | None = None,
        ) -> PeerConnection:
            connection = PeerConnection(
                identity or Identity("clinic"), party, address, retry or RetryPolicy(call_s=10.0, retry_s=10.0)
            )
            if contract is not None:
                connection.enter(contract.session, contract.hash)
            return stack.enter_context(connection)

        yield start


@pytest.fixture
def cut() -> Iterator[Callable[..., Proxy]]:
    """Puts a proxy before an address, whose first connection breaks."""
    with ExitStack() as stack:

        def start(target: str, *, after: int, upstream: bool, once: threading.Event | None = None) -> Proxy:
            proxy = Proxy(target, cut_after(after, upstream=upstream, once=once))
            stack.callback(proxy.stop)
            return proxy

        yield start


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a name short enough for a Unix socket in a folder of a folder of it; `tmp_path` may be too long."""
    with TemporaryDirectory(prefix="e2e-") as folder:
        yield Path(folder)
