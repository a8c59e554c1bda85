"""What only the network's implementation of the port can get wrong: a peer that answers something else, and its threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from comity.errors import ComityError, MalformedMessage, SessionFailed, TrainingDiverged
from comity.ledger.ledger import in_round
from comity.protocol.roles import run
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.calls import ProviderPort
from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Checkpoint
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.session.contexts import PeerContext
from comity.session.events import ignore
from comity.training import Snapshot
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.peer_connection import PeerConnection
from comity.transport.server import NodeServer
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import assisted_learning_pb2_grpc, sessions_pb2

Answer = Callable[[Checkpoint], list[pb.Result]]


def party(peer_context: PeerContext) -> Party:
    return Party(
        peer_context.task,
        peer_context.blobs,
        peer_context.journal,
        peer_context.contract,
        peer_context.own,
        peer_context.peer,
    )


def remote(peer_context: PeerContext, connection: PeerConnection) -> ProviderPort:
    return ProviderPort(peer_context, RemoteChannel(connection))


class Scripted(assisted_learning_pb2_grpc.AssistedLearningServicer):
    """A provider that says what a test tells it to say."""

    def __init__(self, receipt: sessions_pb2.SignedStatement, results: list[pb.Result]) -> None:
        self._receipt = receipt
        self._results = results

    def CloseRound(self, request: pb.CloseRoundRequest, context: grpc.ServicerContext) -> sessions_pb2.SignedStatement:  # noqa: N802
        return self._receipt

    def WatchResults(  # noqa: N802
        self, request: pb.WatchResultsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Result]:
        yield from self._results[request.skip :]


@pytest.fixture
def answered(
    connect: Callable[..., PeerConnection], make_pair: Callable[..., Any]
) -> Iterator[Callable[..., ProviderPort]]:
    """A port to a provider that answers as it is told; the learner's first checkpoint stands for its whole trajectory."""
    servers = []

    def begin(
        receipt: sessions_pb2.SignedStatement | None = None, answer: Answer = lambda checkpoint: []
    ) -> ProviderPort:
        pair = make_pair()
        learner = party(pair.learner)
        # Published, so that it is here already and is not fetched.
        start = learner.blobs.add(learner.task.layout.pack(learner.task.initial_state))
        checkpoint = next(iter(learner.train(start.digest, 1)))
        server = NodeServer(None, [PROTOCOL.load().service.name])
        servers.append(server)
        assisted_learning_pb2_grpc.add_AssistedLearningServicer_to_server(
            Scripted(receipt or sessions_pb2.SignedStatement(), answer(checkpoint)), server.server
        )
        return remote(pair.learner, connect(server.start("127.0.0.1:0")))

    yield begin
    for server in servers:
        server.stop(0)


def test_an_answer_that_is_no_receipt_is_refused(
    answered: Callable[..., ProviderPort], make_pair: Callable[..., Any]
) -> None:
    request = make_pair().learner.receipt_book.sign("request", in_round(1), bytes(32))
    with pytest.raises(MalformedMessage, match="no known kind"):
        answered(sessions_pb2.SignedStatement()).close(1, 1, request)


def result(checkpoint: Checkpoint) -> pb.Result:
    return pb.Result(checkpoint=codec.checkpoint_to_proto(checkpoint))


@pytest.mark.parametrize("message", [pb.Result(), pb.Result(checkpoint=pb.Checkpoint())], ids=["nothing", "no blob"])
def test_a_result_that_is_incomplete_is_refused(answered: Callable[..., ProviderPort], message: pb.Result) -> None:
    with pytest.raises(MalformedMessage, match="incomplete"):
        list(answered(answer=lambda checkpoint: [result(checkpoint), message]).results(1))


def test_a_whole_trajectory_is_taken(answered: Callable[..., ProviderPort]) -> None:
    port = answered(answer=lambda checkpoint: [result(checkpoint)])
    assert [each.index for each in port.results(1)] == [0]


def test_a_trajectory_that_is_not_whole_is_refused(
    answered: Callable[..., ProviderPort], make_pair: Callable[..., Any]
) -> None:
    pair = make_pair()
    port = answered(answer=lambda checkpoint: [result(replace(checkpoint, loss=Loss(1.0, pair.provider.own.samples)))])
    learner = party(pair.learner)
    start = learner.blobs.add(learner.task.layout.pack(learner.task.initial_state))
    list(learner.train(start.digest, 1))
    with pytest.raises(MalformedMessage, match="not whole"):
        list(Learner(learner, [(port, pair.learner.receipt_book)], ignore)._receive(1, "hospital"))


def breaking(peer_context: PeerContext, error: Exception) -> PeerContext:
    """The same peer_context, whose training fails after its first model."""
    task = copy.copy(peer_context.task)

    def trajectory(*args: object, **options: object) -> Iterator[object]:
        yield Snapshot(0, peer_context.task.initial_state, {})
        raise error

    task.trajectory = trajectory
    return replace(peer_context, place=replace(peer_context.place, task=task))


@pytest.mark.timeout(20)
def test_a_provider_that_breaks_says_so_to_the_learner(
    serve: Callable[..., Any], connect: Callable[..., PeerConnection], make_pair: Callable[..., Any]
) -> None:
    pair = make_pair()
    peer_context = breaking(pair.provider, RuntimeError("out of memory: /secret/path"))
    host = serve((peer_context, Provider(party(peer_context), peer_context.receipt_book, ignore)))
    port = remote(pair.learner, connect(host.address, contract=peer_context.contract))
    session = Learner(party(pair.learner), [(port, pair.learner.receipt_book)], ignore)
    with pytest.raises(SessionFailed) as caught:
        run(session)
    assert "secret" not in str(caught.value)


def assert_no_thread(name: str) -> None:
    assert name not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("steep", ["learner", "provider"])
def test_a_session_that_fails_leaves_no_thread(
    serve: Callable[..., Any], connect: Callable[..., PeerConnection], make_pair: Callable[..., Any], steep: str
) -> None:
    pair = make_pair()
    diverged = TrainingDiverged("training diverged")
    learner = breaking(pair.learner, diverged) if steep == "learner" else pair.learner
    provider = breaking(pair.provider, diverged) if steep == "provider" else pair.provider
    host = serve((provider, Provider(party(provider), provider.receipt_book, ignore)))
    with connect(host.address, contract=provider.contract) as connection:
        session = Learner(party(learner), [(remote(learner, connection), learner.receipt_book)], ignore)
        with pytest.raises(TrainingDiverged):
            run(session)
    for thread in threading.enumerate():
        if thread.name in {"send-ahead", "follow-ahead"}:
            thread.join(2.0)
    assert_no_thread("send-ahead")
    assert_no_thread("follow-ahead")


def test_a_refused_offer_leaves_no_thread(
    serve: Callable[..., Any], connect: Callable[..., PeerConnection], make_pair: Callable[..., Any]
) -> None:
    pair = make_pair()
    provider = Provider(party(pair.provider), pair.provider.receipt_book, ignore)
    host = serve((pair.provider, provider))
    with connect(host.address) as connection:
        connection.enter("no-such-session", "0" * 64)
        with pytest.raises(ComityError):
            run(Learner(party(pair.learner), [(remote(pair.learner, connection), pair.learner.receipt_book)], ignore))
