"""The provider's port over gRPC."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial

from comity.blobs.session_blobs import SessionBlobs
from comity.errors import MalformedMessage, NodeDraining
from comity.ledger.receipts import SignedStatement
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.choices import TrajectoryEncoding
from comity.protocols.assisted_learning.messages import Checkpoint, assessment_subject, delta_base, idle
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.gate import EgressGate
from comity.session.replayable_stream import ReplayableStream
from comity.tensors import Layout
from comity.transport.blobs import digest_in
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import assisted_learning_pb2_grpc, blobs_pb2

_UNSENT = 2
"""Checkpoints that may wait for the network before the training waits for it."""


class RemoteProvider:
    """Implements `Assistance`: offers and questions leave in threads of their own, so that training goes on meanwhile.

    Args:
        connection: The line to the provider, which quotes the session already.
        layout: Layout of the contract's model.
        blobs: The session's blobs at this party: what is here is not fetched.
        gate: What may leave.
        encoding: How checkpoints cross, as the terms have it.
    """

    def __init__(
        self,
        connection: PeerConnection,
        layout: Layout,
        blobs: SessionBlobs,
        gate: EgressGate,
        encoding: TrajectoryEncoding = "dense",
    ) -> None:
        self._connection = connection
        self._stub = connection.stub(assisted_learning_pb2_grpc.AssistedLearningStub)
        self._layout = layout
        self._blobs = blobs
        self._gate = gate
        self._encoding = encoding
        self._before: Checkpoint | None = None
        self._sender: _Sender | None = None

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`; questions are asked one after the other."""
        return self._initiator.submit(self._ask, round, digest)

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`; what goes wrong on the way is raised by a later call of the round."""
        if self._sender is None:
            self._sender = _Sender(lambda item: self._send(*item))
            self._connection.at_close(self._sender.abandon)
        self._sender.put((round, checkpoint))

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`; waits until every offer has arrived."""
        if self._sender is not None:
            sender, self._sender = self._sender, None
            sender.finish()
        message = pb.CloseRoundRequest(round=round, count=count, request=statement_to_proto(request))
        return statement_from_proto(self._connection.call(self._stub.CloseRound, message))

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`."""
        message = pb.AcknowledgeRequest(round=round, acknowledgement=statement_to_proto(acknowledgement))
        self._connection.call(self._stub.Acknowledge, message)

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        """See `Assistance.results`; a thread fetches while the caller works on what has come."""
        arrived: ReplayableStream[Checkpoint] = ReplayableStream()
        active = threading.Event()
        active.set()
        fetcher = threading.Thread(
            target=self._fetch, args=(round, skip, arrived, active), name="fetch-results", daemon=True
        )
        fetcher.start()
        try:
            index = 0
            while True:
                while index >= len(arrived) and not arrived.closed:
                    if not meanwhile():
                        break
                following = next(arrived.watch(index), None)
                if following is None:
                    return
                yield following
                index += 1
        finally:
            active.clear()

    @cached_property
    def _initiator(self) -> ThreadPoolExecutor:
        initiator = ThreadPoolExecutor(1, "ask")
        self._connection.at_close(partial(initiator.shutdown, cancel_futures=True))
        return initiator

    def _ask(self, round: int, digest: bytes) -> Loss:
        self._upload(round, digest, None)
        request = pb.AssessRequest(round=round, blob=blobs_pb2.BlobRef(digest=digest))
        answer = next(self._connection.watch(self._stub.Assess, lambda: request), pb.Assessment())
        loss = codec.assessment_from_proto(answer)
        self._gate.admit("loss", assessment_subject(digest), answer.ByteSize(), round=round)
        return loss

    def _upload(self, round: int, digest: bytes, base: bytes | None) -> None:
        blob = self._blobs.get(digest)
        self._connection.put(
            blob,
            "checkpoint",
            round,
            before=lambda size: self._gate.intend("checkpoint", blob.hex, size, round=round),
            base=None if base is None else self._blobs.get(base),
        )
        self._gate.deliver("checkpoint", blob.hex, round=round)

    def _send(self, round: int, checkpoint: Checkpoint) -> None:
        base = delta_base(self._encoding, checkpoint, self._before)
        self._before = checkpoint
        self._upload(round, checkpoint.digest, base)
        request = pb.OfferRequest(round=round, checkpoint=codec.checkpoint_to_proto(checkpoint))
        subject = f"checkpoint {checkpoint.index}"
        self._gate.intend("loss", subject, request.ByteSize(), round=round)
        self._connection.call(self._stub.Offer, request)
        self._gate.deliver("loss", subject, round=round)

    def _fetch(self, round: int, skip: int, arrived: ReplayableStream[Checkpoint], active: threading.Event) -> None:
        def request() -> pb.WatchResultsRequest:
            return pb.WatchResultsRequest(round=round, skip=skip + len(arrived))

        whole = False
        try:
            for result in self._connection.watch(self._stub.WatchResults, request):
                whole = result.HasField("end") and result.end.count <= skip + len(arrived)
                if not active.is_set() or result.HasField("end"):
                    break
                checkpoint = codec.checkpoint_from_proto(result.checkpoint)
                self._fetch_blob(checkpoint.digest, round, result.base if result.HasField("base") else None)
                self._gate.admit("loss", f"checkpoint {checkpoint.index}", result.ByteSize(), round=round)
                arrived.append(checkpoint)
            _require_whole(round, whole=whole or not active.is_set(), received=skip + len(arrived))
            arrived.close()
        except Exception as error:  # noqa: BLE001 - it belongs to the caller of `results`, in another thread
            arrived.close(error)

    def _fetch_blob(self, digest: bytes, round: int, base: blobs_pb2.BlobRef | None) -> None:
        if digest not in self._blobs:
            blob = self._connection.get(
                digest,
                self._layout.size,
                self._layout.verify,
                after=lambda size: self._gate.admit("checkpoint", digest.hex(), size, round=round),
                base=None if base is None else self._blobs.get(digest_in(base)),
            )
            self._blobs.add(blob)


def _require_whole(round: int, *, whole: bool, received: int) -> None:
    if not whole:
        raise MalformedMessage(
            f"the provider's trajectory in round {round} is not whole",
            expected="as many checkpoints as its end counts",
            received=received,
            action="ask the provider's operator what happened",
        )


class _Sender:
    """A thread that sends what it is given, in order; after a failure it sends nothing more.

    Args:
        send: Sends one item.
    """

    def __init__(self, send: Callable[[tuple[int, Checkpoint]], None]) -> None:
        self._send = send
        self._items: queue.Queue[tuple[int, Checkpoint] | None] = queue.Queue(_UNSENT)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="send-offers", daemon=True)
        self._thread.start()

    def put(self, item: tuple[int, Checkpoint]) -> None:
        """Queues an item; raises what an earlier one failed with."""
        if self._failure is not None:
            raise self._failure
        self._items.put(item)

    def finish(self) -> None:
        """Waits until everything is sent; raises what failed."""
        self._items.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Ends the thread without sending what is left."""
        self._failure = self._failure or NodeDraining("the line is closed", action="run the session again")
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._items.put(None, timeout=0.1)
            self._thread.join(0.1)

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            if self._failure is None:
                try:
                    self._send(item)
                except Exception as error:  # noqa: BLE001 - raised by the next `put` or `finish`
                    self._failure = error
