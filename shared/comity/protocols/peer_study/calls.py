"""The calls of peer study, each once: what a client asks of the server; and who makes and who takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comity.protocol.implementation import Implementation
from comity.protocols.peer_study import codec
from comity.protocols.peer_study.client import Client
from comity.protocols.peer_study.messages import Average, AverageDetails, Averaging
from comity.protocols.peer_study.report import merged
from comity.protocols.peer_study.server import Server
from comity.protocols.peer_study.task_builder import TASK, disk_space, private_training, training_plan
from comity.session.contexts import PeerContext, SessionContext
from comity.tensors import Blob, Layout
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.gathering import GatheringCalls, GatheringPort
from comity.transport.calls import BlobField, Unary
from comity.transport.service import Service
from comity.wire.v1 import peer_study_pb2 as pb

_CALLS = GatheringCalls(submits="update", answers="checkpoint", field="average")
AWAIT_LABELS = Unary(
    method="AwaitLabels",
    handle=lambda server, client, round, count: server.await_labels(client.peer.party, round, count),
)

UPLOAD = Unary(
    method="Upload",
    handle=lambda server, client, round, sample: server.upload(client.peer.party, round, sample),
    uploads=(BlobField("sample", "sample"),),
)


class ServerPort(GatheringPort[AverageDetails]):
    """Implements `Averaging`.

    Args:
        context: The client's context opposite the server.
        channel: The way to the server.
    """

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(SERVICE, _CALLS, context, channel)
        task: Any = context.task
        self._layout: Layout = task.layout

    def await_labels(self, round: int, count: int) -> None:
        """See `Averaging.await_labels`."""
        self._call(AWAIT_LABELS, round, count)

    def upload(self, round: int, sample: bytes) -> None:
        """See `Averaging.upload`."""
        self._call(UPLOAD, round, sample)

    def _require_fitting(self, answer: Average) -> None:
        """A model is of the contract's layout, which is checked when it comes."""

    def _size_of(self, details: AverageDetails) -> int:
        del details
        return self._layout.size

    def _verify(self, blob: Blob) -> None:
        self._layout.verify(blob)


SERVICE = Service(
    pb.DESCRIPTOR.services_by_name["PeerStudy"],
    (*_CALLS.all, AWAIT_LABELS, UPLOAD),
    client=ServerPort,
    converters={pb.AverageNews: (codec.news_to_proto, codec.news_from_proto)},
    terms=pb.PeerStudyTerms,
)


def _initiator(contexts: Sequence[PeerContext], ports: Sequence[Averaging]) -> Client:
    (context,), (port,) = contexts, ports
    return Client(context, port)


def _acceptor(session: SessionContext, contexts: Sequence[PeerContext]) -> Server:
    return Server(session, contexts)


IMPLEMENTATION = Implementation(
    service=SERVICE,
    task=TASK,
    disk_space=disk_space,
    initiator=_initiator,
    acceptor=_acceptor,
    private_training=private_training,
    judged=("update",),
    merge=merged,
    training_plan=training_plan,
)
