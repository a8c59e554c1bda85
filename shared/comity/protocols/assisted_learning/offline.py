"""Rounds that somebody carries: a round's calls cross in one bundle, and their answers in another.

The paper's "hard drive": Chen et al. 2023 let a learner or a provider send somebody with their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from google.protobuf.message import Message

from comity.blobs.incoming import Incoming
from comity.errors import MalformedMessage, RoundOutOfOrder
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.protocol.implementation import OfflineBinding
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Checkpoint, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import ProviderPhase
from comity.protocols.assisted_learning.servicer import provider_of, take_acknowledgement, take_close, take_offer
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.session.contexts import PeerContext
from comity.session.receipt_book import ReceiptBook
from comity.session.session_registry import AcceptedSession
from comity.tensors import Blob
from comity.transport.bundles import AnswerDue, Bundle, ReceivedBundle
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import sessions_pb2

Call = pb.AcknowledgeRequest | pb.OfferRequest | pb.CloseRoundRequest


class OfflineProvider:
    """Implements `Assistance` for a learner whose provider is a journey away.

    Args:
        context: The learner's context.
        answer: The bundle that answers the active round; None while it is not here.
    """

    def __init__(self, context: PeerContext, answer: ReceivedBundle | None = None) -> None:
        self.answer = answer
        self._context = context
        self._offers: list[pb.OfferRequest] = []
        self._blobs: dict[bytes, Blob] = {}
        self._held: dict[int, set[bytes]] = {}

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`; only one of several providers is asked, and their rounds cannot be offline.

        Raises:
            RoundOutOfOrder: Always.
        """
        raise RoundOutOfOrder(
            f"nobody can be asked in round {round}, which is offline", expected="one provider", received=digest.hex()
        )

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        """See `Assistance.offer`; what the provider does not like about it, it says when it takes the bundle."""
        if round not in self._held:
            self._held = {round: _came(self._context, round - 1)}
        if checkpoint.digest not in self._held[round]:
            blob = self._context.blobs.get(checkpoint.digest)
            self._context.gate.intend("checkpoint", blob.hex, blob.size, round=round)
            self._blobs[blob.digest] = blob
        request = pb.OfferRequest(round=round, checkpoint=codec.checkpoint_to_proto(checkpoint))
        self._context.gate.intend("loss", f"checkpoint {checkpoint.index}", request.ByteSize(), round=round)
        self._offers.append(request)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`.

        Raises:
            AnswerDue: The provider's answer is not here.
        """
        if self.answer is None or self.answer.round != round:
            closing = pb.CloseRoundRequest(round=round, count=count, request=statement_to_proto(request))
            messages = [*last(self._context.receipt_book, round - 1), *self._offers, closing]
            bundle = Bundle(round, messages, list(self._blobs.values()))
            self._offers, self._blobs = [], {}
            raise AnswerDue(bundle)
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
                expected=f"the bundle that answers round {round}",
                received=f"one of round {self.answer.round}" if self.answer is not None else "none",
                action="import it, again if that was cut short",
            )
        # There would be no answer if what was offered had not arrived.
        self._context.gate.deliver_all(round)
        results = [each for each in _answers(self.answer) if isinstance(each, pb.Result)]
        for result in results[skip:]:
            checkpoint = codec.checkpoint_from_proto(result.checkpoint)
            self._take_blob(self.answer, checkpoint.digest, round)
            self._context.gate.admit("loss", f"checkpoint {checkpoint.index}", result.ByteSize(), round=round)
            yield checkpoint

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`; it stands in the ledger, from where the next bundle takes it."""

    def _take_blob(self, answer: ReceivedBundle, digest: bytes, round: int) -> None:
        if digest in self._context.blobs:
            return
        layout = self._context.task.layout
        incoming = Incoming(digest, layout.size)
        answer.fill(incoming)
        blob = incoming.finish()
        layout.verify(blob)
        self._context.gate.admit("checkpoint", blob.hex, blob.size, round=round)
        self._context.blobs.add(blob)


def last(receipt_book: ReceiptBook, round: int) -> Sequence[Message]:
    """The acknowledgement of a round, which travels with what comes after it; nothing where there is none."""
    made = receipt_book.made("acknowledgement", in_round(round))
    if made is None:
        return []
    return [pb.AcknowledgeRequest(round=round, acknowledgement=statement_to_proto(made))]


def take(session: AcceptedSession, bundle: ReceivedBundle) -> None:
    """Does what the learner's bundle asks, call by call.

    Raises:
        PeerMessageError: A call does not fit; those before it are done.
    """
    provider = provider_of(session)
    # All of them are read before the first is done.
    calls: list[Call] = list(bundle.messages(pb.AcknowledgeRequest, pb.OfferRequest, pb.CloseRoundRequest))
    for message in calls:
        match message:
            case pb.AcknowledgeRequest():
                # Of a round before the one that is on it was taken, or that could not have begun.
                if message.round >= provider.round:
                    take_acknowledgement(session, message)
            case pb.OfferRequest():
                _take_upload(session, bundle, message.checkpoint.blob.digest, message.round)
                take_offer(session, message)
            case pb.CloseRoundRequest():
                take_close(session, message)


def answer(session: AcceptedSession) -> Bundle | None:
    """Does the provider's work of the active round, and returns its answer; None before the first round.

    Raises:
        RoundOutOfOrder: The learner's bundle was not taken whole.
        ComityError: The session cannot go on.
    """
    provider, context = provider_of(session), session.context
    round = provider.round
    offered = _came(context, round)
    if provider.phase is ProviderPhase.OFFERING:
        if not offered:
            return None
        raise RoundOutOfOrder(
            f"the learner's part of round {round} is not whole",
            expected="all of its bundle",
            received=f"{len(offered)} checkpoints of it",
            action="import the bundle again",
        )
    results, blobs = [], {}
    for checkpoint in provider.results(round):
        if checkpoint.digest not in offered:
            blob = context.blobs.get(checkpoint.digest)
            context.gate.intend("checkpoint", blob.hex, blob.size, round=round)
            blobs[blob.digest] = blob
        result = pb.Result(checkpoint=codec.checkpoint_to_proto(checkpoint))
        context.gate.intend("loss", f"checkpoint {checkpoint.index}", result.ByteSize(), round=round)
        results.append(result)
    receipt = context.receipt_book.made("receipt", in_round(round))
    statements = [] if receipt is None else [statement_to_proto(receipt)]
    return Bundle(round, [*statements, *results], list(blobs.values()))


def _answers(bundle: ReceivedBundle) -> Iterator[Message]:
    return bundle.messages(sessions_pb2.SignedStatement, pb.Result)


def _came(context: PeerContext, round: int) -> set[bytes]:
    """Digests of what the other party sent in a round: it has them, so they need not be sent back."""
    digests = (
        each.fields["digest"] for each in context.journal.records() if (each.kind, each.round) == ("received", round)
    )
    return {bytes.fromhex(str(each)) for each in digests}


def _take_upload(session: AcceptedSession, bundle: ReceivedBundle, digest: bytes, round: int) -> None:
    """Takes a blob from the bundle, as an upload would bring it."""
    if digest not in bundle or session.blobs.held(digest).complete:
        return
    incoming = session.blobs.receive("checkpoint", round, digest, bundle.blob_size, 0)
    try:
        bundle.fill(incoming)
    except BaseException:
        session.blobs.forget(incoming)
        raise
    session.blobs.complete(incoming, lambda whole: session.gate.admit("checkpoint", whole.hex, whole.size, round=round))


def _ask(context: PeerContext, bundle: ReceivedBundle | None) -> Learner:
    party = Party(context.task, context.blobs, context.journal, context.contract, context.own, context.peer)
    return Learner(party, [(OfflineProvider(context, bundle), context.receipt_book)], context.observe)


OFFLINE = OfflineBinding(_ask, take, answer, last)
