"""What every binding of declared calls must do, whatever the protocol: shown with the protocols of packages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from federated_count.v1 import federated_count_pb2 as pb
from google.protobuf.message import Message
from teacher_votes.calls import ACKNOWLEDGE, VOTE, TeacherPort
from teacher_votes.teaching import requests_of, subject
from teacher_votes.v1 import teacher_votes_pb2

from comity.errors import ComityError, MalformedMessage, PolicyRefusal, RoundOutOfOrder, SessionFailed
from comity.ledger.comparison import compare
from comity.ledger.ledger import in_round, loaded
from comity.ledger.receipts import SignedStatement, subject_of
from comity.ledger.verification import verify
from comity.node.sessions.script import parse_script
from comity.session.contexts import PeerContext
from comity.session.session_registry import AcceptedSession
from comity.session.worker import InlineWorker
from comity.simulation.in_process import simulate
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.dispatcher import Following
from comity.transport.bindings.in_process import InProcessChannel
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.identity import Identity
from comity.transport.methods import Method
from comity.transport.server import NodeServer
from comity.transport.service import Service
from comity.wire.v1 import sessions_pb2
from tests.cases import PROTOCOLS, plain
from tests.company import Company, company
from tests.contract.courier import Courier

BINDINGS = ("in_process", "remote", "offline")
NETWORKED = BINDINGS[:2]
"""Streams that go on from round to round, and answers that take a person, are not brought by hand."""
SMALL = {protocol: plain(protocol).text for protocol in ("federated_count", "teacher_votes")}
REVIEWED = SMALL["teacher_votes"].replace(
    'role = "teacher"', 'role = "teacher"\nprotocols = { teacher-votes = { review = { listen = "here" } } }'
)


class Joined:
    """A session's parties, with a way from each initiator to each acceptor.

    Args:
        of: The parties.
        binding: How they are joined.
        request: Finds the fixtures that serve and connect.
        folder: Where bundles lie.
        stack: Closes what was opened.
    """

    def __init__(
        self, of: Company, binding: str, request: pytest.FixtureRequest, folder: Path, stack: ExitStack
    ) -> None:
        self.of = of
        self.hosts: dict[str, Any] = {}
        self._binding = binding
        self._request = request
        self._folder = folder
        self._stack = stack

    def join(self, own: PeerContext, other: PeerContext, role: Any) -> Channel:
        if self._binding == "in_process":
            return InProcessChannel(other, role)
        if self._binding == "offline":
            service = self.of.definition.load().service
            courier = Courier(service, own, other, role, self._folder, lambda party: self.of.parties[party].signer)
            self._stack.callback(courier.close)
            return courier
        name = other.own.party
        if name not in self.hosts:
            contexts = next(each for each in self.of.acceptors if other in each)
            self.hosts[name] = self._request.getfixturevalue("serve")(*((each, role) for each in contexts))
        connect, identity = self._request.getfixturevalue("connect"), Identity(own.own.party)
        address, contract = self.hosts[name].address, self.of.contract
        return RemoteChannel(connect(address, identity=identity, party=name, contract=contract))

    def port(self) -> Any:
        return self.of.port(self.join)

    def serve(self, address: str, *sessions: tuple[PeerContext, Any]) -> None:
        """Has an acceptor that went away come back, where it was."""
        self._request.getfixturevalue("serve")(*sessions, address=address)

    def counted(self, round: int, count: int) -> tuple[int, int, SignedStatement]:
        """What the first initiator of a federated count says."""
        book = self.of.initiators[0][0].receipt_book
        return round, count, book.sign("request", in_round(round), subject_of({"count": count}))

    @property
    def lengths(self) -> list[int]:
        return [sum(len(list(chain.entries)) for chain in party.store.chains()) for party in self.of.parties.values()]


@pytest.fixture
def joined(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Joined]]:
    with ExitStack() as stack:

        def begin(binding: str, text: str = SMALL["federated_count"]) -> Joined:
            return Joined(company(text), binding, request, tmp_path, stack)

        yield begin


@pytest.mark.parametrize(
    ("name", "binding"),
    [(name, binding) for name in PROTOCOLS for binding in (BINDINGS if name == "federated_count" else NETWORKED)],
)
def test_a_session_ends_alike_over_every_binding(name: str, binding: str, joined: Callable[..., Joined]) -> None:
    found = joined(binding, plain(name).text)
    outcomes = found.of.run(found.join)
    expected, _ = simulate(found.of.script)
    assert found.of.digest(outcomes) == expected.digest
    assert found.of.charges()


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_call_that_is_repeated_does_nothing_again(binding: str, joined: Callable[..., Joined]) -> None:
    found = joined(binding)
    port, said = found.port(), found.counted(1, 4)
    first = port.add(*said)
    before = found.lengths
    assert port.add(*said) == first
    assert found.lengths == before


@pytest.mark.parametrize("binding", NETWORKED)
def test_a_refusal_costs_the_call_alone(binding: str, joined: Callable[..., Joined]) -> None:
    found = joined(binding)
    port = found.port()
    with pytest.raises(RoundOutOfOrder):
        port.add(*found.counted(3, 1))
    sum, _ = port.add(*found.counted(1, 4))
    assert sum == 4 + found.of.acceptors[0][0].task.count(1)


def test_who_answers_nonsense_has_the_request_all_the_same(
    joined: Callable[..., Joined], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = joined("remote")
    port, said = found.port(), found.counted(1, 4)
    call = RemoteChannel.call

    def nonsense(channel: RemoteChannel, method: Method, request: Message) -> Message:
        return type(call(channel, method, request))()

    monkeypatch.setattr(RemoteChannel, "call", nonsense)
    with pytest.raises(ComityError):
        port.add(*said)
    chains = found.of.parties[found.of.initiators[0][0].own.party].store.chains()
    facts = [entry.fact for chain in chains for entry in chain.entries]
    assert [each.matter for each in facts if each.kind == "count"] == ["intended", "delivered"]


def test_a_call_that_waits_for_a_person_is_answered_when_it_can_be(joined: Callable[..., Joined]) -> None:
    found = joined("remote", REVIEWED)
    contract, own, other = found.of.contract, found.of.initiators[0][0], found.of.acceptors[0][0]
    request = own.receipt_book.sign("request", requests_of(contract, 1), subject(contract, 1))
    port = found.port()
    answer = port.vote(1, request, [])
    assert not wait([answer], timeout=0.2).done
    hosted = found.hosts[other.own.party].sessions.find(contract.session)
    assert [each.kind for each in found.of.events[other.own.party]] == ["waiting"]
    assert hosted.worker.call(hosted.role.release) == 1
    votes, _, _ = answer.result(timeout=10)
    assert votes == other.task.votes(1)
    assert found.of.events[other.own.party][1].kind == "waiting-over"
    port.acknowledge(requests_of(contract, 1))


@pytest.mark.parametrize("binding", NETWORKED)
def test_a_blob_comes_with_an_answer_by_a_measure_of_its_own(binding: str, joined: Callable[..., Joined]) -> None:
    scored = SMALL["teacher_votes"].replace("[session.models", "terms.scored = true\n[session.models")
    with pytest.raises(PolicyRefusal, match=r"policy\.egress refuses the session: .*received score"):
        simulate(parse_script(scored))
    found = joined(binding, scored.replace('"vote"]', '"vote", "score"]'))
    assert found.of.contract.egress == ("contract", "vote", "score")
    (outcome,) = found.of.run(found.join)
    contract, task = found.of.contract, found.of.initiators[0][0].task
    voters = [contexts[0].task for contexts in found.of.acceptors]
    expected = [label for round in (1, 2, 3) for label in task.most_scored([each.scores(round) for each in voters])]
    assert outcome.metrics["labels"] == expected
    crossed = [
        (str(each.fact.units), each.fact.size)
        for each in found.of.parties["clinic"].store.entries(contract.session, "lab")
        if each.fact.kind == "score"
    ]
    size = task.scores_layout.size
    assert crossed == [("requests 1 to 8", size), ("requests 9 to 16", size), ("requests 17 to 24", size)]
    for party in found.of.parties.values():
        verify(loaded(party.store.chains()))


def test_a_round_goes_on_without_a_peer_that_is_away(joined: Callable[..., Joined]) -> None:
    """It is neither asked again nor paid for what it missed, and is told when it is back; both ledgers say so."""
    quick = 'role = "student"\nprotocols = { teacher-votes = { wait_s = 0.3 } }'
    found = joined("remote", SMALL["teacher_votes"].replace('role = "student"', quick))
    own, definition, party = found.of.initiators[0], found.of.definition, found.of.parties["clinic"]
    ports = [found.of.port(found.join, 0, at) for at in range(len(own))]
    student = definition.load().initiator(own, ports)
    work = student.work()
    next(work)
    lab, (theirs,), role = found.hosts["lab"], found.of.acceptors[1], found.of.roles[1]
    lab.server.stop(0)
    next(work)
    assert [each.fields["peer"] for each in found.of.events["clinic"] if each.kind == "peer-absent"] == ["lab"]
    # Whoever begins again, from what is kept, goes on without it, too.
    place = party.session_context(found.of.contract, own[0].own, found.of.events["clinic"].append)
    again = [replace(party.peer_context(place, each.peer), presence=each.presence) for each in own]
    assert again[1].receipt_book.is_withdrawn(requests_of(found.of.contract, 2))
    assert definition.load().initiator(again, ports).outcome() == student.outcome()
    found.serve(lab.address, (theirs, role))
    next(work)
    assert next(work, None) is None
    metrics = student.outcome().metrics
    voted = [[votes is not None for votes in each] for each in metrics["votes"]]
    assert voted == [[True, True, True], [True, False, True], [True, True, True]]
    charged = {}
    for name, store in ((name, each.store) for name, each in found.of.parties.items()):
        charged[name] = verify(loaded(store.chains())).charged
    assert charged == {
        "clinic": {"request": 64},
        "hospital": {"request": 24},
        "lab": {"request": 16},
        "office": {"request": 24},
    }
    assert compare(*(loaded(found.of.parties[name].store.chains()) for name in ("clinic", "lab"))) == []


@pytest.mark.parametrize("cancels", [False, True])
def test_what_nobody_waits_for_any_more_may_be_cancelled(joined: Callable[..., Joined], cancels: bool) -> None:
    """Where a call says so: a role then need not begin with it, and charge for it."""
    found = joined("in_process", REVIEWED)
    contract, own, other, role = (
        found.of.contract,
        found.of.initiators[0][0],
        found.of.acceptors[0][0],
        found.of.roles[0],
    )
    service = Service(
        teacher_votes_pb2.DESCRIPTOR.services_by_name["Teaching"],
        (replace(VOTE, cancels=cancels), ACKNOWLEDGE),
        client=TeacherPort,
        terms=teacher_votes_pb2.TeacherVotesTerms,
    )
    method, request = (
        service.methods["Vote"],
        own.receipt_book.sign("request", requests_of(contract, 1), subject(contract, 1)),
    )
    session = AcceptedSession(other, role, InlineWorker(role))
    following = Following(session, method, method.encode_request(1, request, []))
    assert following.read() is None
    (asked,) = role._asked.values()
    following.close()
    assert asked.cancelled() is cancels


def test_several_questions_are_asked_at_once(joined: Callable[..., Joined]) -> None:
    found = joined("in_process", SMALL["teacher_votes"])
    contract, own, other, role = (
        found.of.contract,
        found.of.initiators[0][0],
        found.of.acceptors[0][0],
        found.of.roles[0],
    )
    together, in_turn = threading.Barrier(2), threading.Lock()

    class Waiting(InProcessChannel):
        """A way that takes time: nobody is answered before two have asked."""

        waits = True

        def follow(self, method: Method, request: Callable[[], Message]) -> Iterator[Message | None]:
            together.wait(20)
            with in_turn:
                yield from super().follow(method, request)

        def at_close(self, end: Callable[[], None]) -> None:
            ends.append(end)

    class Port(TeacherPort):
        asks_at_once = 2

    ends: list[Callable[[], None]] = []
    port = Port(own, Waiting(other, role))
    request = own.receipt_book.sign("request", requests_of(contract, 1), subject(contract, 1))
    answers = [port.vote(1, request, []) for _ in range(2)]
    assert [each.result(20)[0] for each in answers] == [other.task.votes(1)] * 2
    for end in ends:
        end()


@pytest.mark.parametrize(
    "answer",
    [pb.AddReply(sum=4), pb.AddReply(sum=4, receipt=sessions_pb2.SignedStatement())],
    ids=["nothing", "of no kind"],
)
def test_an_answer_that_is_no_receipt_is_refused(
    answer: pb.AddReply, joined: Callable[..., Joined], connect: Callable[..., Any]
) -> None:
    found = joined("remote")
    name = found.of.definition.load().service.name
    server = NodeServer(None, [name])
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer.SerializeToString())
    server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Add": handler}),))
    try:
        channel = RemoteChannel(connect(server.start("127.0.0.1:0"), contract=found.of.contract))
        with pytest.raises(MalformedMessage):
            found.of.port(lambda *_: channel).add(*found.counted(1, 4))
    finally:
        server.stop(0)


def test_an_acceptor_that_breaks_says_that_and_no_more(
    joined: Callable[..., Joined], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[int]:
        raise RuntimeError("out of memory: /secret/path")

    monkeypatch.setattr("teacher_votes.voting.Voter.votes", broken)
    found = joined("remote", SMALL["teacher_votes"])
    with pytest.raises(SessionFailed) as caught:
        found.of.run(found.join)
    assert "secret" not in str(caught.value)
