"""Rounds that somebody carries: a round's calls cross in one parcel, and their answers in another.

The paper's "hard drive": Chen et al. 2023 let a learner or a provider send somebody with their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from google.protobuf.message import Message

from comity.errors import MalformedMessage, RoundOutOfOrder
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Checkpoint, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Phase
from comity.protocols.assisted_learning.servicer import provider_of, take_acknowledgement, take_close, take_offer
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.hosting import HostedSession
from comity.session.incoming import Incoming
from comity.session.ledger import in_round
from comity.session.notary import Notary
from comity.session.receipts import SignedStatement
from comity.session.seat import Seat
from comity.tensors import Blob
from comity.transport.parcels import AnswerDue, ReceivedParcel, Shipment
from comity.transport.protocol import Carriage
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import sessions_pb2

Call = pb.AcknowledgeRequest | pb.OfferRequest | pb.CloseRoundRequest


class CarriedProvider:
    """Implements `Assistance` for a learner whose provider is a journey away.

    Args:
        seat: The learner's seat.
        answer: The parcel that answers the round that is on; None while it is not here.
    """

    def __init__(self, seat: Seat, answer: ReceivedParcel | None = None) -> None:
        self.answer = answer
        self._seat = seat
        self._offers: list[pb.OfferRequest] = []
        self._blobs: dict[bytes, Blob] = {}
        self._held: dict[int, set[bytes]] = {}

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`; only one of several providers is asked, and their rounds cannot be carried.

        Raises:
            RoundOutOfOrder: Always.
        """
        raise RoundOutOfOrder(
            f"nobody can be asked in round {round}, which is carried", expected="one provider", received=digest.hex()
        )

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`; what the provider does not like about it, it says when it takes the parcel."""
        if round not in self._held:
            self._held = {round: _came(self._seat, round - 1)}
        if checkpoint.digest not in self._held[round]:
            blob = self._seat.blobs.get(checkpoint.digest)
            self._seat.gate.intend("checkpoint", blob.hex, blob.size, round=round)
            self._blobs[blob.digest] = blob
        request = pb.OfferRequest(round=round, checkpoint=codec.checkpoint_to_proto(checkpoint))
        self._seat.gate.intend("loss", f"checkpoint {checkpoint.index}", request.ByteSize(), round=round)
        self._offers.append(request)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`.

        Raises:
            AnswerDue: The provider's answer is not here.
        """
        if self.answer is None or self.answer.round != round:
            closing = pb.CloseRoundRequest(round=round, count=count, request=statement_to_proto(request))
            messages = [*last(self._seat.notary, round - 1), *self._offers, closing]
            shipment = Shipment(round, messages, list(self._blobs.values()))
            self._offers, self._blobs = [], {}
            raise AnswerDue(shipment)
        for each in _answers(self.answer):
            if isinstance(each, sessions_pb2.SignedStatement):
                return statement_from_proto(each)
        raise MalformedMessage(
            "the answer is incomplete", expected="a receipt", received="none", action="ask the provider's operator"
        )

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:  # noqa: ARG002
        """See `Assistance.results`; all of them are here, or none."""
        if self.answer is None or self.answer.round != round:
            raise RoundOutOfOrder(
                "there are no results of that round",
                expected=f"the parcel that answers round {round}",
                received=f"one of round {self.answer.round}" if self.answer is not None else "none",
                action="import it, again if that was cut short",
            )
        # There would be no answer if what was offered had not arrived.
        self._seat.gate.deliver_all(round)
        results = [each for each in _answers(self.answer) if isinstance(each, pb.Result)]
        for result in results[skip:]:
            checkpoint = codec.checkpoint_from_proto(result.checkpoint)
            self._take_blob(self.answer, checkpoint.digest, round)
            self._seat.gate.admit("loss", f"checkpoint {checkpoint.index}", result.ByteSize(), round=round)
            yield checkpoint

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`; it stands in the ledger, from where the next parcel takes it."""

    def _take_blob(self, answer: ReceivedParcel, digest: bytes, round: int) -> None:
        if digest in self._seat.blobs:
            return
        layout = self._seat.task.layout
        incoming = Incoming(digest, layout.size)
        answer.fill(incoming)
        blob = incoming.finish()
        layout.verify(blob)
        self._seat.gate.admit("checkpoint", blob.hex, blob.size, round=round)
        self._seat.blobs.add(blob)


def last(notary: Notary, round: int) -> Sequence[Message]:
    """The acknowledgement of a round, which travels with what comes after it; nothing where there is none."""
    made = notary.made("acknowledgement", in_round(round))
    if made is None:
        return []
    return [pb.AcknowledgeRequest(round=round, acknowledgement=statement_to_proto(made))]


def take(session: HostedSession, parcel: ReceivedParcel) -> None:
    """Does what the learner's parcel asks, call by call.

    Raises:
        PeerMessageError: A call does not fit; those before it are done.
    """
    provider = provider_of(session)
    # All of them are read before the first is done.
    calls: list[Call] = list(parcel.messages(pb.AcknowledgeRequest, pb.OfferRequest, pb.CloseRoundRequest))
    for message in calls:
        match message:
            case pb.AcknowledgeRequest():
                # Of a round before the one that is on it was taken, or that could not have begun.
                if message.round >= provider.round:
                    take_acknowledgement(session, message)
            case pb.OfferRequest():
                _take_upload(session, parcel, message.checkpoint.blob.digest, message.round)
                take_offer(session, message)
            case pb.CloseRoundRequest():
                take_close(session, message)


def answer(session: HostedSession) -> Shipment | None:
    """Does the provider's work of the round that is on, and returns its answer; None before the first round.

    Raises:
        RoundOutOfOrder: The learner's parcel was not taken whole.
        ComityError: The session cannot go on.
    """
    provider, seat = provider_of(session), session.seat
    round = provider.round
    offered = _came(seat, round)
    if provider.phase is Phase.OFFERING:
        if not offered:
            return None
        raise RoundOutOfOrder(
            f"the learner's part of round {round} is not whole",
            expected="all of its parcel",
            received=f"{len(offered)} checkpoints of it",
            action="import the parcel again",
        )
    results, blobs = [], {}
    for checkpoint in provider.results(round):
        if checkpoint.digest not in offered:
            blob = seat.blobs.get(checkpoint.digest)
            seat.gate.intend("checkpoint", blob.hex, blob.size, round=round)
            blobs[blob.digest] = blob
        result = pb.Result(checkpoint=codec.checkpoint_to_proto(checkpoint))
        seat.gate.intend("loss", f"checkpoint {checkpoint.index}", result.ByteSize(), round=round)
        results.append(result)
    receipt = seat.notary.made("receipt", in_round(round))
    statements = [] if receipt is None else [statement_to_proto(receipt)]
    return Shipment(round, [*statements, *results], list(blobs.values()))


def _answers(parcel: ReceivedParcel) -> Iterator[Message]:
    return parcel.messages(sessions_pb2.SignedStatement, pb.Result)


def _came(seat: Seat, round: int) -> set[bytes]:
    """Digests of what the other party sent in a round: it has them, so they need not be sent back."""
    digests = (
        each.fields["digest"] for each in seat.journal.records() if (each.kind, each.round) == ("received", round)
    )
    return {bytes.fromhex(str(each)) for each in digests}


def _take_upload(session: HostedSession, parcel: ReceivedParcel, digest: bytes, round: int) -> None:
    """Takes a blob from the parcel, as an upload would bring it."""
    if digest not in parcel or session.blobs.held(digest).complete:
        return
    incoming = session.blobs.receive("checkpoint", round, digest, parcel.blob_size, 0)
    try:
        parcel.fill(incoming)
    except BaseException:
        session.blobs.forget(incoming)
        raise
    session.blobs.complete(incoming, lambda whole: session.gate.admit("checkpoint", whole.hex, whole.size, round=round))


def _ask(seat: Seat, parcel: ReceivedParcel | None) -> Learner:
    party = Party(seat.task, seat.blobs, seat.journal, seat.contract, seat.own, seat.peer)
    return Learner(party, [(CarriedProvider(seat, parcel), seat.notary)], seat.observe)


CARRIAGE = Carriage(_ask, take, answer, last)
