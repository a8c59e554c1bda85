"""What an attacker of assisted learning has: a session of her own, and the blobs and messages of an honest learner."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from google.protobuf.message import Message

from comity.cli.progress import SessionProgress
from comity.cli.run import follow
from comity.contract import Contract
from comity.ledger.ledger import Head, in_round
from comity.node.control_client import ControlClient
from comity.node.party import LocalParty
from comity.protocol.roles import run
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.protocols.assisted_learning.messages import Checkpoint, trajectory_digest
from comity.session.codec import statement_to_proto
from comity.session.contexts import PeerContext
from comity.session.events import ignore
from comity.simulation.processes import NodeProcess
from comity.tensors import Blob, Layout
from comity.transport import blobs, sessions
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.identity import Identity
from comity.transport.negotiation import decode_agreement, encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import assisted_learning_pb2_grpc, blobs_pb2, sessions_pb2
from tests.e2e.hostile.parties import QUICK, Play

SCRIPT = """\
[session]
protocol = "assisted_learning"
id = "{id}"
acceptors = ["{acceptor}"]
rounds = {rounds}
seed = 3

[session.model]
name = "mlp"
options = {{ hidden = 16 }}

[session.terms]
learning_rate = 0.003
batch_size = 32
iterations = 40
sampling_period = 5
evaluation_batch_size = 32
"""

PLAY = Play(PROTOCOL.name, SCRIPT, "learner", "provider")


@dataclass
class Attack:
    """Mallory's session with the provider: her line, and the pieces of an honest learner to spoil.

    Attributes:
        connection: The line; it quotes the session.
        contract: The session's contract.
        party: Mallory.
        context: Her side of the session, as an honest role would have it.
    """

    connection: PeerConnection
    contract: Contract
    party: LocalParty
    context: PeerContext
    offers: dict[int, Checkpoint] = field(default_factory=dict)
    stub: assisted_learning_pb2_grpc.AssistedLearningStub = field(init=False)

    def __post_init__(self) -> None:
        self.stub = assisted_learning_pb2_grpc.AssistedLearningStub(self.connection.channel)

    @property
    def layout(self) -> Layout:
        return self.context.task.layout

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """A copy of the weights that the session begins with."""
        return {name: tensor.clone() for name, tensor in self.context.task.initial_state.items()}

    @property
    def blob(self) -> Blob:
        """The blob that an honest learner offers first."""
        return self.layout.pack(self.state)

    def put(
        self,
        data: bytes | memoryview,
        *,
        pieces: Iterable[bytes | memoryview] | None = None,
        without: str | None = None,
        **announced: object,
    ) -> blobs_pb2.BlobStat:
        """Uploads bytes; what is announced beside them may be anything."""
        blob = Blob.of(bytes(data))
        beside = {"kind": "checkpoint", "unit": "round", "first": 1, "count": 1, "digest": blob.hex}
        beside |= {"size": blob.size, "offset": 0} | announced
        metadata = [*self.connection._metadata, *((f"comity-{k}", str(v)) for k, v in beside.items() if k != without)]
        views = blobs.chunks(blob, 0) if pieces is None else (memoryview(piece) for piece in pieces)
        stat: blobs_pb2.BlobStat = self.connection._put(views, metadata=metadata, timeout=QUICK.call_s)
        return stat

    def checkpoint(
        self, blob: Blob | None = None, *, index: int = 0, iteration: int = 0, sum: float = 85.0, count: int = 37
    ) -> pb.Checkpoint:
        reference = blobs_pb2.BlobRef(digest=(blob or self.blob).digest)
        return pb.Checkpoint(index=index, iteration=iteration, blob=reference, loss=pb.Loss(sum=sum, count=count))

    def offer(self, checkpoint: pb.Checkpoint | None, round: int = 1) -> pb.OfferReply:
        reply = self.call("Offer", pb.OfferRequest(round=round, checkpoint=checkpoint))
        if checkpoint is not None:
            self.offers[checkpoint.index] = codec.checkpoint_from_proto(checkpoint)
        return reply

    def close(self, count: int = 1, round: int = 1) -> sessions_pb2.SignedStatement:
        """Closes a round with a request that is signed as an honest learner's."""
        subject = trajectory_digest(round, list(self.offers.values())).hex()
        contract = self.contract
        signed = self.party.signer.state("request", contract.session, contract.hash, in_round(round), subject, Head())
        request = pb.CloseRoundRequest(round=round, count=count, request=statement_to_proto(signed))
        answer: sessions_pb2.SignedStatement = self.call("CloseRound", request)
        return answer

    def call(self, method: str, request: Message) -> Any:
        return getattr(self.stub, method)(request, metadata=self.connection._metadata, timeout=QUICK.call_s)

    def watch(self, round: int = 1, skip: int = 0) -> list[pb.Result]:
        return list(self.call("WatchResults", pb.WatchResultsRequest(round=round, skip=skip)))

    def begin(self) -> Blob:
        """Offers the first checkpoint as an honest learner does."""
        blob = self.blob
        assert self.put(blob.data).complete
        self.offer(self.checkpoint(blob))
        return blob

    def play_on(self) -> str:
        """Plays the whole session honestly, whatever was tried before; returns its digest."""
        return run(PROTOCOL.load().connected([self.context], [RemoteChannel(self.connection)]))[0].digest


@contextmanager
def agreed(line: PeerConnection, id: str, play: Play = PLAY, **changes: Any) -> Iterator[Attack]:
    """A session of Mallory's, that is agreed on in good order and ended."""
    contract, party = play.mallorys(id, **changes)
    own = party.membership("learner")
    agreement = sessions.propose(line, encode_proposal(contract, own, party.signer, PROTOCOL))
    assert agreement is not None
    peer = decode_agreement(agreement, contract, "provider", PROTOCOL)
    line.enter(contract.session, contract.hash)
    try:
        yield Attack(line, contract, party, party.peer_context(party.session_context(contract, own, ignore), peer))
    finally:
        sessions.end(line, "finished")


METHODS: Mapping[str, tuple[str, Message]] = {
    "/comity.wire.v1.Blobs/Stat": ("unary_unary", blobs_pb2.BlobRef(digest=bytes(32))),
    "/comity.wire.v1.Blobs/Put": ("stream_unary", blobs_pb2.BlobChunk(data=b"a")),
    "/comity.wire.v1.Blobs/Get": ("unary_stream", blobs_pb2.BlobRequest(blob=blobs_pb2.BlobRef(digest=bytes(32)))),
    "/comity.wire.v1.AssistedLearning/Offer": ("unary_unary", pb.OfferRequest(round=1)),
    "/comity.wire.v1.AssistedLearning/CloseRound": ("unary_unary", pb.CloseRoundRequest(round=1, count=1)),
    "/comity.wire.v1.AssistedLearning/WatchResults": ("unary_stream", pb.WatchResultsRequest(round=1)),
}


def spoiled_headers(layout: Layout, blob: Blob) -> dict[str, bytes]:
    """Blobs of the right length whose headers are another model's, or nobody's."""
    header, body = layout.header, bytes(blob.data[len(layout.header) :])
    text = header[8:]

    def with_text(replacement: bytes) -> bytes:
        return header[:8] + replacement[: len(text)].ljust(len(text)) + body

    return {
        "another dtype": with_text(text.replace(b'"F32","shape":[16]', b'"I32","shape":[16]')),
        "another shape": with_text(text.replace(b"[10,16]", b"[16,10]")),
        "another name": with_text(text.replace(b"3.weight", b"4.weight")),
        "places swapped": with_text(text.replace(b"[0,64]", b"[1,65]")),
        "no header": bytes(blob.size),
        "noise": bytes((i * 97 + 13) % 251 for i in range(blob.size)),
        "an absurd header length": struct.pack("<Q", 2**63) + bytes(blob.data[8:]),
        "brackets": with_text(b"[" * len(text)),
        "a list": with_text(b"[1,2,3]"),
        "null": with_text(b"null"),
        "a null tensor": with_text(b'{"1.bias":null}'),
        "numbers for names": with_text(json.dumps({"1.bias": {"dtype": 1e308, "shape": {"a": [2**70]}}}).encode()),
        "no text": with_text(b"\xff\xfe\x00"),
    }


@dataclass(frozen=True)
class Learner:
    """A learner's daemon.

    Attributes:
        node: The daemon.
        cheat: Who it takes for its second provider.
        address: Where it looks for it.
    """

    node: NodeProcess
    cheat: Identity
    address: str

    def run(self, script: str) -> dict[str, Any]:
        """Runs a session from it, as `comity run` does."""
        with ControlClient(self.node.control_url) as control, SessionProgress(quiet=True) as progress:
            return follow(control, control.run(script), progress)[0]
