"""What a stream in both directions must do: calls of many callers, on threads of none, each answered or let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import grpc
import pytest
from teacher_votes.calls import CONVERSE, QUESTIONING, OraclePort
from teacher_votes.questions import Oracle
from teacher_votes.v1 import teacher_votes_pb2 as pb

from comity.errors import DeadlineExceeded, PolicyRefusal, TooManyCalls, UnsupportedProtocol
from comity.ledger.comparison import compare
from comity.ledger.ledger import loaded
from comity.ledger.verification import verify
from comity.session.metering.requests import RequestMeter
from comity.session.request_queue import RequestQueue
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.calls import Unary, Waiting
from comity.transport.identity import Identity
from comity.transport.service import Service
from comity.transport.streams import PolledRequests
from tests.cases import plain
from tests.company import Company, company

DEADLINE_S = 30.0


class Asking:
    """A student with a port to an oracle that is served on loopback.

    Args:
        of: Both.
        serve: The fixture.
        connect: The fixture.
    """

    def __init__(self, of: Company, serve: Callable[..., Any], connect: Callable[..., Any]) -> None:
        self.of = of
        self._serve = serve
        (self.own,), (self.other,) = of.initiators[0], of.acceptors[0]
        self.role = of.roles[0]
        self.gate = threading.Event()
        self.gate.set()
        self._hold(self.role)
        self.host = serve((self.other, self.role))
        self.line = connect(self.host.address, identity=Identity("clinic"), contract=of.contract)
        self.port = OraclePort(self.own, RemoteChannel(self.line))
        self.meter = RequestMeter(self.own, self.role._meter._metered)
        self.meter.use(60)

    def _hold(self, role: Oracle) -> None:
        """Has the role answer only while the gate is open; `working` is set while it waits for that."""
        take, self.working = role._queue.take, threading.Event()

        def held(most: int) -> Any:
            if len(role._queue) and not self.gate.is_set():
                self.working.set()
                self.gate.wait(DEADLINE_S)
            return take(most)

        role._queue.take = held  # type: ignore[method-assign]

    def restart(self) -> None:
        """The oracle's node goes and comes back, with a role that goes on from what is kept."""
        self.host.server.stop(0)
        self.host.sessions.drain()
        party = self.of.parties["hospital"]
        place = party.session_context(self.of.contract, self.other.own, lambda event: None, [self.other.peer])
        context = party.peer_context(place, self.other.peer)
        self.role = self.of.definition.load().acceptor(place, [context])
        self._hold(self.role)
        self.host = self._serve((context, self.role), address=self.host.address)

    def ask(self, number: int, within_ms: int = 0) -> Future[Any]:
        return self.port.ask(number, number % 6, within_ms)

    def alone(self, request: pb.AskRequest) -> Any:
        """A call of its own, once."""
        path = f"/{QUESTIONING.name}/Ask"
        stub = self.line.stub(
            lambda channel: channel.unary_stream(path, pb.AskRequest.SerializeToString, pb.AskReply.FromString)
        )
        return stub(request, metadata=self.line._metadata)

    def settle(self) -> int:
        """What is charged in all, by both ledgers."""
        self.meter.settle(self.port)
        ledgers = [loaded(party.store.chains()) for party in self.of.parties.values()]
        assert compare(*ledgers) == []
        (charged,) = {verify(each).charged.get("request", 0) for each in ledgers}
        return charged


@pytest.fixture
def asking(serve: Callable[..., Any], connect: Callable[..., Any]) -> Iterator[Asking]:
    found = Asking(company(plain("vote_questions").text), serve, connect)
    yield found
    found.gate.set()


def until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.01)


def test_whatever_is_queued_is_answered_together(asking: Asking) -> None:
    asking.gate.clear()
    first = asking.ask(1)
    assert asking.working.wait(DEADLINE_S)
    answers = [first, *(asking.ask(number) for number in range(2, 31))]
    hosted = asking.host.sessions.find(asking.of.contract.session)
    until(lambda: hosted.worker.queued >= 29, "all of them are there")
    asking.gate.set()
    values = [each.result(DEADLINE_S).value for each in answers]
    expected = asking.other.task.votes(1)
    assert values == [(number, expected[number % 6]) for number in range(1, 31)]
    assert sum(asking.role.batches) == 30
    assert max(asking.role.batches) >= 10
    assert asking.settle() == 30


def test_a_call_of_its_own_is_answered_alike(asking: Asking) -> None:
    both = [each.result(DEADLINE_S) for each in (asking.ask(7), asking.port.ask_alone(7, 7 % 6, 0))]
    assert both[0] == both[1]
    assert asking.settle() == 1


def test_a_question_whose_caller_has_gone_leaves_the_queue(asking: Asking) -> None:
    """It costs nothing, is not charged, and those behind it do not notice."""
    asking.gate.clear()
    held = asking.ask(1)
    assert asking.working.wait(DEADLINE_S)
    gone = [asking.alone(pb.AskRequest(number=40 + each)) for each in range(5)]
    hosted = asking.host.sessions.find(asking.of.contract.session)
    until(lambda: hosted.worker.queued >= 5, "they wait")
    for each in gone:
        each.cancel()
    behind = asking.ask(2)
    until(lambda: hosted.worker.queued >= 6, "so does one behind them")
    asking.gate.set()
    assert [each.result(DEADLINE_S).value[0] for each in (held, behind)] == [1, 2]
    asking.ask(3).result(DEADLINE_S)
    assert asking.settle() == sum(asking.role.batches) == 3


def test_a_question_that_is_withdrawn_from_a_stream_leaves_the_queue(asking: Asking) -> None:
    """Its caller has gone, and the stream goes on: it is not answered, not charged, and its place is free."""
    asking.gate.clear()
    held = asking.ask(1)
    assert asking.working.wait(DEADLINE_S)
    hosted = asking.host.sessions.find(asking.of.contract.session)
    gone = [asking.ask(40 + each) for each in range(5)]
    until(lambda: hosted.worker.queued >= 5, "they wait")
    for each in gone:
        assert each.cancel()
    # What comes later on the stream comes after what withdraws them.
    behind = asking.ask(2)
    until(lambda: hosted.worker.queued >= 6, "so does one behind them")
    asking.gate.set()
    assert [each.result(DEADLINE_S).value[0] for each in (held, behind)] == [1, 2]
    asking.ask(3).result(DEADLINE_S)
    assert asking.settle() == sum(asking.role.batches) == 3


def test_a_question_whose_deadline_has_passed_is_not_charged(asking: Asking) -> None:
    asking.gate.clear()
    held = asking.ask(1)
    assert asking.working.wait(DEADLINE_S)
    late, behind = asking.ask(2, within_ms=1), asking.ask(3)
    alone = asking.alone(pb.AskRequest(number=4, within_ms=1))
    hosted = asking.host.sessions.find(asking.of.contract.session)
    until(lambda: hosted.worker.queued >= 3, "they wait")
    # A deadline counts from its arrival, however long the role is at work.
    passed = time.monotonic() + 0.05
    until(lambda: time.monotonic() > passed, "it is too late")
    asking.gate.set()
    assert [each.result(DEADLINE_S).value[0] for each in (held, behind)] == [1, 3]
    with pytest.raises(grpc.RpcError) as refused:
        next(alone)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not late.done()
    late.cancel()
    assert asking.settle() == 2


def test_a_restart_amid_a_stream_charges_each_answer_once(asking: Asking) -> None:
    done = [asking.ask(number) for number in range(1, 11)]
    assert not wait(done, DEADLINE_S).not_done
    asking.gate.clear()
    cut = [asking.ask(number) for number in range(11, 31)]
    assert asking.working.wait(DEADLINE_S)
    stopping = threading.Thread(target=asking.restart)
    stopping.start()
    asking.gate.set()
    stopping.join(DEADLINE_S)
    assert [each.result(DEADLINE_S).value[0] for each in cut] == list(range(11, 31))
    assert asking.ask(5).result(DEADLINE_S).value[0] == 5
    assert asking.settle() == 30


def test_only_so_many_are_under_way_and_all_are_answered(
    asking: Asking, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until one is answered, no more is read: the queue holds no more, and nobody is turned away."""
    object.__setattr__(CONVERSE, "most", 8)
    try:
        waiting: list[int] = []
        put = asking.role._queue.put
        monkeypatch.setattr(
            asking.role._queue, "put", lambda *each: (waiting.append(len(asking.role._queue) + 1), put(*each))[1]
        )
        answers = [asking.ask(number) for number in range(1, 61)]
        assert [each.result(DEADLINE_S).value[0] for each in answers] == list(range(1, 61))
        assert max(waiting) <= 8
    finally:
        object.__setattr__(CONVERSE, "most", 128)


def test_streams_hold_no_thread_of_the_server(asking: Asking) -> None:
    path, metadata = f"/{QUESTIONING.name}/Converse", asking.line._metadata
    stub = asking.line.stub(
        lambda channel: channel.stream_stream(path, pb.AskRequest.SerializeToString, pb.AskReply.FromString)
    )
    gates, streams = [threading.Event() for _ in range(60)], []

    def requests(number: int) -> Iterator[pb.AskRequest]:
        yield pb.AskRequest(number=number)
        gates[number - 1].wait(DEADLINE_S)

    streams = [stub(requests(number), metadata=metadata) for number in range(1, 61)]
    try:
        assert sorted(next(each).number for each in streams) == list(range(1, 61))
        # More than the server has threads, all open, and it answers as ever.
        assert asking.settle() == 60
        busy = [each.name for each in threading.enumerate() if each.name.startswith("rpc")]
        assert len(busy) <= 32
    finally:
        for gate in gates:
            gate.set()
    assert [next(each, None) for each in streams] == [None] * 60


def test_what_was_not_announced_does_not_leave(asking: Asking) -> None:
    with pytest.raises(PolicyRefusal, match="vote of number 61 was not announced"):
        asking.ask(61)
    assert asking.settle() == 0


def test_what_grpc_is_asked_for_is_there() -> None:
    """`PolledRequests` rests on what is not documented: a version without it shows here."""
    iterator = grpc._server._RequestIterator
    assert {"_raise_or_start_receive_message", "_look_for_request"} <= set(vars(iterator))
    assert isinstance(grpc._server._RPCState().condition, threading.Condition)
    assert PolledRequests.__init__ is not object.__init__


@pytest.mark.parametrize("call", [Waiting(method="Converse", handle=lambda: None), Unary(method="Ask", handle=print)])
def test_a_call_is_declared_as_what_it_is(call: Any) -> None:
    calls = [method.call for name, method in QUESTIONING.methods.items() if name != call.method]
    with pytest.raises(UnsupportedProtocol, match="is declared as another kind of call"):
        Service(
            pb.DESCRIPTOR.services_by_name["Questioning"],
            (*calls, call),
            client=OraclePort,
            terms=pb.QuestionTerms,
        )


def test_a_full_queue_says_so_and_makes_room_for_those_who_wait() -> None:
    queue = RequestQueue(2)
    gone, stays = queue.put("gone"), queue.put("stays")
    with pytest.raises(TooManyCalls, match="at most 2, received one more"):
        queue.put("third")
    gone.cancel()
    late = queue.put("late", time.monotonic() - 1.0)
    last = queue.put("last")
    assert isinstance(late.exception(0), DeadlineExceeded)
    assert [each.request for each in queue.take(10)] == ["stays", "last"]
    assert not stays.done()
    assert not last.done()
