"""Every registered protocol's acceptor under attack by a party that it trusts and by one that its policy does not name.

They follow, call, upload and propose as much as they are let while an honest session runs; it ends as a simulation does, and
nothing of theirs stays. And many honest sessions at once are all played to their end, at both sides.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.errors import ComityError, PolicyRefusal, TooManyCalls
from comity.node.control_client import ControlClient
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess, running
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.transport import blobs, sessions
from comity.transport.certificates import Authority
from comity.transport.identity import Identity
from comity.transport.negotiation import encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.transport.status import from_rpc_error
from tests.cases import PROTOCOLS, plain
from tests.e2e.conftest import until
from tests.e2e.hostile.parties import QUICK, refusal
from tests.ledgers import charged_once, kept

DEADLINE_S = 90.0
FOLLOWED, UPLOADS, PROPOSED = 60, 20, 12
SHARE = 3
"""Sessions that one party may have."""


@dataclass
class Attacked:
    """A session's parties as daemons, and two who attack them.

    Attributes:
        script: The session.
        folder: Where the daemons keep their states.
        nodes: The daemons by party.
        mallory: A party that the acceptors' policy names.
        stranger: One with a certificate that they trust, and no more.
    """

    script: Script
    folder: Path
    nodes: dict[str, NodeProcess]
    mallory: Identity
    stranger: Identity
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def acceptor(self) -> NodeProcess:
        return self.nodes[self.script.session.acceptors[0]]

    def run(self, id: str) -> dict[str, Any]:
        """An honest session, by operators of its own."""
        script = self.script.model_copy(update={"session": self.script.session.model_copy(update={"id": id})})
        with ExitStack() as stack:
            clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in self.nodes.items()}
            return drive(script, clients, stack.enter_context(SessionProgress(quiet=True)))[0]

    def states(self, prefix: str) -> Counter[str]:
        """How the sessions stand, at all nodes, whose names begin so."""
        found = Counter[str]()
        for node in self.nodes.values():
            with ControlClient(node.control_url) as control:
                found.update(each.state for each in control.sessions() if each.session.startswith(prefix))
        return found

    def line(self, identity: Identity) -> PeerConnection:
        """A line to the acceptor."""
        name = self.script.session.acceptors[0]
        with ControlClient(self.acceptor.control_url) as control:
            address = control.describe().address
        return self.stack.enter_context(PeerConnection(identity, name, address, QUICK))


@pytest.fixture(scope="module", params=[pytest.param(each, marks=pytest.mark.xdist_group(each)) for each in PROTOCOLS])
def found(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    """Daemons that the tests of a protocol share: the last of them leaves sessions behind."""
    with TemporaryDirectory(prefix="e2e-") as folder:
        yield from attacked(request.param, Path(folder))


def attacked(protocol: str, folder: Path) -> Iterator[Attacked]:
    script = plain(protocol).script
    authority = Authority.create()
    initiators = sorted(script.party.keys() - set(script.session.acceptors))
    for name in script.session.acceptors:
        section = script.party[name]
        policy = {"parties": (*initiators, "mallory"), "max_sessions": 64, "max_sessions_a_party": SHARE}
        script.party[name] = section.model_copy(update={"policy": section.policy.model_copy(update=policy)})
    who = {name: authority.issue(name, folder / name / "tls") for name in ("mallory", "stranger")}
    with running(script, folder, authority=authority) as nodes, ExitStack() as stack:
        yield Attacked(script, folder, nodes, who["mallory"], who["stranger"], stack)


def test_an_attacked_session_ends_as_if_it_had_not_been(found: Attacked) -> None:
    process = psutil.Process(found.acceptor.pid)
    before = process.num_threads()
    lines = [found.line(each) for each in (found.mallory, found.stranger)]
    refused = Counter[tuple[str, str]]()
    # Two parties that would hold every thread; `serving.md` had it with half as many.
    follows = [call for line in lines for call in follow_health(line, FOLLOWED)]
    assert sum(each is not None for each in follows) == 2 * FOLLOWED
    stop = threading.Event()
    pestering = [threading.Thread(target=pester, args=(found, line, refused, stop)) for line in lines]
    stuck = [stuck_upload(line, stop) for line in lines for _ in range(UPLOADS)]
    for each in pestering:
        each.start()
    try:
        result = found.run("honest")
    finally:
        stop.set()
        for each in pestering:
            each.join(DEADLINE_S)
    expected = simulate(with_id(found.script, "honest"))[0]
    assert (result["digest"], result["metrics"]) == (expected.digest, expected.metrics)
    # What was tried was refused, each with its reason.
    assert "UNKNOWN_SESSION" in {reason for _, reason in refused}, refused
    assert not [path for path, reason in refused if reason == "answered"], refused
    tried = Counter(path for path, _ in refused.elements())
    assert all(tried[path] >= 2 * count for path, count in Counter(path for path, _ in calls_of(found)).items())
    assert {refusal(each.result).reason() for each in stuck} <= {"UNKNOWN_SESSION", "TOO_MANY_CALLS", "UNKNOWN_PARTY"}
    assert found.acceptor.exit_code() is None, found.acceptor.last_words()
    assert process.num_threads() < before + 64
    for each in follows:
        each.cancel()
    assert found.states("honest").keys() == {"finished"}
    stores = {party: kept(node.folder / "state") for party, node in found.nodes.items()}
    charged_once(with_id(found.script, "honest"), stores)


@pytest.mark.parametrize("count", [SHARE, pytest.param(24, marks=pytest.mark.slow)])
def test_many_honest_sessions_at_once_all_end(found: Attacked, count: int) -> None:
    """None is lost, and none stays behind: of one initiator, as many at a time as the acceptor lets it have."""
    share, rest = divmod(count, SHARE)
    assert not rest
    names = [[f"h-{count}-{lot}-{number}" for number in range(SHARE)] for lot in range(share)]
    expected = {name: simulate(with_id(found.script, name))[0].digest for name in names[0]}
    with ThreadPoolExecutor(SHARE) as pool:
        results = [result for lot in names for result in pool.map(found.run, lot)]
    assert {each["session"]: each["digest"] for each in results[:SHARE]} == expected
    until(
        lambda: found.states(f"h-{count}-").keys() == {"finished"},
        "all have ended at both sides",
        deadline_s=DEADLINE_S,
    )
    assert found.states(f"h-{count}-")["finished"] == count * len(found.nodes)


def test_one_party_fills_no_others_places(found: Attacked) -> None:
    """Proposals of one party come to its own share, drafts and those that wait among them; others are served as ever."""
    definition = plain(found.script.session.protocol).definition
    line = found.line(found.mallory)
    if definition.topology.is_joined:
        # Nobody but its operator opens a session; whoever is not in the policy hears of none.
        asked = refusal(lambda: sessions.fetch(found.line(found.stranger), "honest", lambda name: definition))
        assert isinstance(asked, PolicyRefusal)
    else:
        answers = [proposed(found, line, f"m-{number}") for number in range(PROPOSED)]
        assert [each is None for each in answers] == [True] * SHARE + [False] * (PROPOSED - SHARE)
        assert all("policy.max_sessions_a_party" in str(each) for each in answers[SHARE:])
    assert found.run("beside")["digest"] == simulate(with_id(found.script, "beside"))[0].digest


def with_id(script: Script, id: str) -> Script:
    return script.model_copy(update={"session": script.session.model_copy(update={"id": id})})


def follow_health(line: PeerConnection, count: int) -> list[Any]:
    """Follows the acceptor's health many times, and has each told that it serves."""
    stub = line.stub(health_pb2_grpc.HealthStub)
    calls = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(count)]
    for each in calls:
        assert next(each).status == health_pb2.HealthCheckResponse.SERVING
    return calls


def stuck_upload(line: PeerConnection, stop: threading.Event) -> Any:
    """An upload that never sends a byte."""

    def nothing() -> Iterator[memoryview]:
        stop.wait(DEADLINE_S)
        return
        yield

    metadata = [("comity-session", "honest"), ("comity-contract", "0" * 64), ("comity-kind", "checkpoint")]
    return line._put.future(nothing(), metadata=[*line._metadata, *metadata], timeout=DEADLINE_S)


def calls_of(found: Attacked) -> list[tuple[str, bytes]]:
    """Every method of the protocol's service and of what all have, with noise for its request."""
    service = plain(found.script.session.protocol).definition.load().service
    paths = [method.path for method in service.methods.values()]
    paths += [f"/{sessions.SERVICE}/{name}" for name in ("Propose", "End", "Fetch", "Draft")]
    paths += [f"/{blobs.SERVICE}/{name}" for name in ("Stat", "Get")]
    return [(path, noise) for path in paths for noise in (b"", b"\x08\x01", b"\xff" * 40)]


def pester(found: Attacked, line: PeerConnection, refused: Counter[tuple[str, str]], stop: threading.Event) -> None:
    """Calls whatever there is, in a session that is somebody else's, until it is told to stop; once through at least."""
    metadata = (*line._metadata, ("comity-session", "honest"), ("comity-contract", "0" * 64))
    while True:
        for path, noise in calls_of(found):
            method = line.stub(lambda channel, path=path: channel.unary_stream(path))  # type: ignore[misc]
            try:
                list(method(noise, metadata=metadata, timeout=QUICK.call_s))
                refused[path, "answered"] += 1
            except grpc.RpcError as failure:
                refused[path, from_rpc_error(failure).reason()] += 1
        if stop.wait(0.01):
            return


def proposed(found: Attacked, line: PeerConnection, id: str) -> ComityError | None:
    """Mallory's proposal of the session; why it is refused."""
    script = with_id(found.script, id)
    (initiator,) = script.party.keys() - set(script.session.acceptors)
    party = LocalParty("mallory", script.party[initiator], GivenSecrets(b"mallory's"), MemoryStore())
    contract, definition = draft_contract(script, party, id)
    message = encode_proposal(contract, party.membership(definition.initiator, contract), party.signer, definition)
    ask: Callable[[], object] = lambda: sessions.propose(line, message)  # noqa: E731
    try:
        ask()
    except TooManyCalls:
        raise
    except ComityError as error:
        return error
    return None
