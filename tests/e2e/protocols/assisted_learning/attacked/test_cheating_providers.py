"""A provider that cheats, before a learner's daemon."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from pydantic import SecretStr

from comity import errors
from comity.errors import ComityError
from comity.ledger.ledger import in_round
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.protocols.assisted_learning.calls import CLOSE, SERVICE
from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.session.replayable_stream import StreamEnd
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.simulation.in_process import simulate
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.tensors import Blob, Layout
from comity.transport import blobs, sessions
from comity.transport.bindings.dispatcher import Following, dispatch
from comity.transport.calls import Unary
from comity.transport.description import describing
from comity.transport.identity import Identity
from comity.transport.methods import Method
from comity.transport.server import NodeServer
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import blobs_pb2, sessions_pb2, sessions_pb2_grpc
from tests.e2e.hostile.parties import assert_clear, refusal
from tests.e2e.protocols.assisted_learning.attacked.attacks import PLAY, SCRIPT, Learner, spoiled_headers

Results = Iterator[pb.Result]


@dataclass
class Cheat:
    """What a provider does otherwise than it should.

    Attributes:
        results: Changes the trajectory on its way out.
        pieces: Changes a blob's pieces on their way out.
        receipt: Changes a receipt.
        agreement: Changes an agreement.
        raw: Answers of methods, as bytes.
        fails: What closing a round fails with.
    """

    results: Callable[[Results, AcceptedSession], Results] = lambda results, _: results
    pieces: Callable[[Iterator[memoryview]], Iterator[memoryview]] = lambda pieces: pieces
    receipt: Callable[[sessions_pb2.SignedStatement], object] = lambda _: None
    agreement: Callable[[sessions_pb2.Agreement], object] = lambda _: None
    raw: Mapping[str, bytes] = field(default_factory=dict)
    fails: str = ""


def serve_assistance(server: grpc.Server, hosted: SessionRegistry, cheat: Cheat) -> None:
    """The calls of the protocol, answered by a provider that is honest in all but one thing."""

    def find(context: grpc.ServicerContext) -> AcceptedSession:
        return sessions.session_of(hosted, context, PROTOCOL.name)

    def answer(method: Method, request: Any, context: grpc.ServicerContext) -> Any:
        if method.call is CLOSE and cheat.fails:
            raise errors.SessionFailed(cheat.fails)
        said = dispatch(find(context), method, request)
        if method.call is CLOSE:
            cheat.receipt(said)
        return said

    def follow(method: Method, request: Any, context: grpc.ServicerContext) -> Results:
        session = find(context)
        yield from cheat.results(followed(Following(session, method, request)), session)

    handlers = {}
    for name, method in SERVICE.methods.items():
        kind, answers = ("unary_unary", answer) if isinstance(method.call, Unary) else ("unary_stream", follow)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        handlers[name] = make(
            partial(answers, method), method.request_type.FromString, method.answer_type.SerializeToString
        )
    for path, raw in cheat.raw.items():
        service, _, name = path.partition("/")
        if service == SERVICE.name:
            handlers[name] = grpc.unary_unary_rpc_method_handler(lambda _, __, raw=raw: raw)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.name, handlers),))


def followed(following: Following) -> Results:
    """What a follower gets, one after another."""
    ready = threading.Event()
    following.subscribe(ready.set)
    try:
        while True:
            message = following.read()
            if message is not None:
                yield message
            else:
                ready.wait()
                ready.clear()
    except StreamEnd:
        return
    finally:
        following.close()


class CheatingBlobs(blobs.BlobServicer):
    def __init__(self, find: Callable[[grpc.ServicerContext], AcceptedSession], cheat: Cheat) -> None:
        super().__init__(find)
        self._cheat = cheat

    def Get(self, request: blobs_pb2.BlobRequest, context: grpc.ServicerContext) -> Iterator[memoryview]:  # noqa: N802
        yield from self._cheat.pieces(super().Get(request, context))


class CheatingSessions(sessions.SessionsServicer):
    def __init__(self, hosted: SessionRegistry, acceptor: Acceptor, party: LocalParty, cheat: Cheat) -> None:
        describe = describing(party.name, PROTOCOL.acceptor, {PROTOCOL.name: PROTOCOL.version})
        super().__init__(hosted, acceptor, party.signer, describe)
        self._cheat = cheat

    def Propose(self, request: sessions_pb2.Proposal, context: grpc.ServicerContext) -> sessions_pb2.ProposalReply:  # noqa: N802
        reply = super().Propose(request, context)
        self._cheat.agreement(reply.agreement)
        return reply


@contextmanager
def cheating(identity: Identity, address: str, cheat: Cheat) -> Iterator[None]:
    """A provider that is honest in all but one thing, in this process."""
    section = PLAY.script("any", acceptor="cheat").party["cheat"]
    section.policy = section.policy.model_copy(update={"max_sessions": 1000})
    party = LocalParty("cheat", section, GivenSecrets(b"cheat's"), MemoryStore())
    hosted = SessionRegistry(party.store)
    server = NodeServer(identity, [sessions.SERVICE, blobs.SERVICE, SERVICE.name])
    acceptor = Acceptor(party, AcceptedSessions(party, "provider", hosted))
    sessions_pb2_grpc.add_SessionsServicer_to_server(CheatingSessions(hosted, acceptor, party, cheat), server.server)
    CheatingBlobs(lambda context: sessions.session_of(hosted, context), cheat).add_to(server.server)
    serve_assistance(server.server, hosted, cheat)
    for path, answer in cheat.raw.items():
        service, _, method = path.partition("/")
        if service == SERVICE.name:
            continue
        handler = grpc.unary_unary_rpc_method_handler(lambda _, __, answer=answer: answer)
        server.server.add_registered_method_handlers(service, {method: handler})
    server.start(address)
    try:
        yield
    finally:
        hosted.drain()
        server.stop(0)


def edit(index: int, change: Callable[[pb.Checkpoint], object]) -> Cheat:
    """Changes a checkpoint of the trajectory."""

    def results(honest: Results, session: AcceptedSession) -> Results:
        del session
        for position, result in enumerate(honest):
            if position == index:
                change(result.checkpoint)
            yield result

    return Cheat(results=results)


def swap(index: int, change: Callable[[Layout, Blob], bytes | memoryview]) -> Cheat:
    """Puts another blob, under its right digest, in the place of a checkpoint's."""

    def results(honest: Results, session: AcceptedSession) -> Results:
        layout = session.role._party.task.layout
        for position, result in enumerate(honest):
            if position == index:
                other = Blob.of(bytes(change(layout, session.blobs.get(result.checkpoint.blob.digest))))
                session.blobs.publish(session.blobs.add(other).digest, "checkpoint", in_round(1))
                result.checkpoint.blob.digest = other.digest
            yield result

    return Cheat(results=results)


def instead(change: Callable[[list[pb.Result]], Iterable[pb.Result]]) -> Cheat:
    """Gives another trajectory."""
    return Cheat(results=lambda honest, _: iter(change(list(honest))))


def with_weight(value: float) -> Callable[[Layout, Blob], memoryview]:
    """The same model with one weight replaced."""

    def change(layout: Layout, blob: Blob) -> memoryview:
        state = {name: tensor.clone() for name, tensor in layout.view(blob.data).items()}
        state["3.weight"][0, 0] = value
        return layout.pack(state).data

    return change


def corrupted(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        yield memoryview(bytes(piece[:-1]) + bytes([piece[-1] ^ 1]))


def cut(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        yield piece[: min(len(piece), 100)]
        return


def overlong(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    yield from pieces
    while True:
        yield memoryview(bytes(1000))


def setting_fields(**values: Any) -> Callable[[Message], None]:
    def change(message: Message) -> None:
        for path, value in values.items():
            *parents, last = path.split("__")
            target: Any = message
            for name in parents:
                target = getattr(target, name)
            setattr(target, last, value)

    return change


CHEATS: Mapping[str, tuple[Cheat, type[ComityError], tuple[str, ...]]] = {
    "a corrupted blob": (Cheat(pieces=corrupted), errors.BlobCorrupted, ()),
    "a blob that ends early": (Cheat(pieces=cut), errors.BlobTruncated, ("5112 bytes",)),
    "a blob that never ends": (Cheat(pieces=overlong), errors.BlobSizeMismatch, ("5112 bytes",)),
    "weights that are NaN": (swap(1, with_weight(math.nan)), errors.NonFiniteValue, ("tensor 3.weight", "NaN")),
    "weights that are infinite": (swap(5, with_weight(-math.inf)), errors.NonFiniteValue, ("an infinite value",)),
    "another dtype": (
        swap(1, lambda layout, blob: spoiled_headers(layout, blob)["another dtype"]),
        errors.TensorMismatch,
        ("F32 [16]", "I32 [16]"),
    ),
    "another shape": (
        swap(1, lambda layout, blob: spoiled_headers(layout, blob)["another shape"]),
        errors.TensorMismatch,
        ("F32 [10, 16]", "F32 [16, 10]"),
    ),
    "noise for a model": (
        swap(1, lambda layout, blob: spoiled_headers(layout, blob)["noise"]),
        errors.TensorMismatch,
        ("header",),
    ),
    "a start that was never offered": (
        swap(0, with_weight(0.5)),
        errors.MalformedMessage,
        ("did not start round 1 from an offered checkpoint",),
    ),
    "an index out of order": (
        edit(1, setting_fields(index=2)),
        errors.RoundOutOfOrder,
        ("index 1 of 6", "index 2"),
    ),
    "another iteration": (edit(1, setting_fields(iteration=7)), errors.MalformedMessage, ("expected 5", "received 7")),
    "a loss over other samples": (
        edit(1, setting_fields(loss__count=99)),
        errors.MalformedMessage,
        ("expected 100", "received 99"),
    ),
    "a loss that is NaN": (edit(1, setting_fields(loss__sum=math.nan)), errors.NonFiniteValue, ("nan",)),
    "a loss that is infinite": (edit(0, setting_fields(loss__sum=math.inf)), errors.NonFiniteValue, ("inf",)),
    "a negative loss": (edit(1, setting_fields(loss__sum=-1.0)), errors.MalformedMessage, ("-1.0",)),
    "a checkpoint without its blob": (
        edit(1, lambda checkpoint: checkpoint.ClearField("blob")),
        errors.MalformedMessage,
        ("blob",),
    ),
    "a digest that is none": (edit(1, setting_fields(blob__digest=b"x")), errors.MalformedMessage, ("32 bytes",)),
    "a digest of nothing": (edit(1, setting_fields(blob__digest=bytes(32))), errors.UnknownBlob, ("00" * 32,)),
    "nothing in a result": (instead(lambda _: [pb.Result()]), errors.MalformedMessage, ()),
    "no trajectory": (
        instead(lambda _: []),
        errors.MalformedMessage,
        ("round 1",),
    ),
    "fewer checkpoints than were bought": (
        instead(lambda results: results[:3]),
        errors.MalformedMessage,
        ("6", "3"),
    ),
    "more checkpoints than were bought": (
        instead(lambda results: itertools.chain(results[:6], itertools.repeat(results[5], 100))),
        errors.RoundOutOfOrder,
        ("of 6",),
    ),
    "a receipt for another round": (
        Cheat(receipt=setting_fields(first=2)),
        errors.ReceiptInvalid,
        ("expected round 1", "received round 2"),
    ),
    "a receipt for another offer": (
        Cheat(receipt=setting_fields(subject="00" * 32)),
        errors.ReceiptInvalid,
        ("another subject", "00" * 32),
    ),
    "a receipt that nobody signed": (
        Cheat(receipt=setting_fields(signature=bytes(64))),
        errors.ReceiptInvalid,
        ("is not signed by cheat",),
    ),
    "a request for a receipt": (
        Cheat(receipt=setting_fields(kind="request")),
        errors.ReceiptInvalid,
        ("another kind",),
    ),
    "an agreement that nobody signed": (
        Cheat(agreement=setting_fields(signature=bytes(64))),
        errors.ReceiptInvalid,
        ("is not signed",),
    ),
    "an agreement with another key": (
        Cheat(agreement=setting_fields(membership__receipt_key="ab" * 32)),
        errors.ReceiptInvalid,
        ("is not signed",),
    ),
    "a receipt of nine megabytes": (
        Cheat(receipt=setting_fields(signature=bytes(9 * 2**20))),
        errors.RemoteFailure,
        ("RESOURCE_EXHAUSTED",),
    ),
    "garbage for a receipt": (
        Cheat(raw={f"{SERVICE.name}/CloseRound": b"\xff" * 50}),
        errors.RemoteFailure,
        ("INTERNAL",),
    ),
    "garbage for an agreement": (
        Cheat(raw={f"{sessions.SERVICE}/Propose": b"\xff" * 50}),
        errors.RemoteFailure,
        ("INTERNAL",),
    ),
    "an agreement to another contract": (
        Cheat(agreement=setting_fields(contract_hash="ab" * 32)),
        errors.ContractMismatch,
        ("ab" * 32,),
    ),
    "an agreement of another party": (
        Cheat(agreement=setting_fields(membership__party="somebody")),
        errors.MalformedMessage,
        ("provider cheat", "provider somebody"),
    ),
    "an agreement over no samples": (
        Cheat(agreement=setting_fields(membership__samples=0)),
        errors.MalformedMessage,
        ("samples",),
    ),
    "a failure that tries to print": (
        Cheat(fails="all is\nwell\x1b[2J\r" * 40),
        errors.SessionFailed,
        ("all is",),
    ),
}


@pytest.mark.parametrize("case", CHEATS)
def test_a_provider_that_cheats(case: str, learner: Learner) -> None:
    cheat, kind, parts = CHEATS[case]
    script = SCRIPT.format(id=f"cheated-{list(CHEATS).index(case)}", acceptor="cheat", rounds=2)
    with cheating(learner.cheat, learner.address, cheat):
        error = refusal(lambda: learner.run(script))
    assert_clear(error, kind, *parts)
    assert str(error).isprintable()
    assert learner.node.exit_code() is None


@pytest.mark.parametrize("case", ["a corrupted blob", "weights that are NaN"])
def test_a_provider_that_cheats_as_a_user_meets_it(case: str, learner: Learner, comity: Any, tmp_path: Path) -> None:
    cheat, kind, _ = CHEATS[case]
    number = len(CHEATS) + list(CHEATS).index(case)
    (tmp_path / "session.toml").write_text(SCRIPT.format(id=f"cheated-{number}", acceptor="cheat", rounds=2))
    with cheating(learner.cheat, learner.address, cheat):
        done = comity("run", "session.toml", "--json", "--node", learner.node.folder / "state", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == kind.reason()
    assert done.stderr == f"comity: {json.loads(done.stdout)['message']}\n"


def test_the_honest_pair_of_the_cheats(learner: Learner) -> None:
    """The provider that the cheats are made from is honest where nothing is changed."""
    with cheating(learner.cheat, learner.address, Cheat()):
        digest = learner.run(SCRIPT.format(id="not-cheated", acceptor="cheat", rounds=2))["digest"]
    script = PLAY.script("not-cheated", acceptor="cheat")
    script.party["cheat"].secret = SecretStr("cheat's")
    assert digest == simulate(script)[1].digest
