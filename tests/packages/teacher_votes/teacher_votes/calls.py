"""The calls of both protocols, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from comity.ledger.ledger import Units
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext
from comity.session.metering.tally import Answered, Tally
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import BlobField, Stream, Unary, Waiting, Watch
from comity.transport.service import Service
from teacher_votes.pooling import Labels
from teacher_votes.teaching import Votes
from teacher_votes.v1 import teacher_votes_pb2 as pb

VOTE = Waiting(
    method="Vote",
    handle=lambda teacher, student, *asked: teacher.vote(*asked),
    downloads=(BlobField("score", "scores", layout=lambda student: student.task.scores_layout),),
)
ACKNOWLEDGE = Unary(method="Acknowledge", handle=lambda teacher, student, first, count: None, delivers=True)


class TeacherPort(PeerPort):
    """Implements `Teaching`."""

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(TEACHING, context, channel)

    def vote(self, round: int, request: SignedStatement, withdrawals: Sequence[SignedStatement]) -> Future[Votes]:
        """See `Teaching.vote`."""
        return self._ask(VOTE, round, request, withdrawals)

    def acknowledge(self, units: Units) -> None:
        """See `Teaching.acknowledge`."""
        self._call(ACKNOWLEDGE, units.first, units.count)


TEACHING = Service(
    pb.DESCRIPTOR.services_by_name["Teaching"], (VOTE, ACKNOWLEDGE), client=TeacherPort, terms=pb.TeacherVotesTerms
)


def _resume(request: pb.WatchLabelsRequest, labels: pb.PooledLabels) -> None:
    request.after = labels.round


CAST = Unary(
    method="Cast",
    handle=lambda server, client, round, votes, request: server.cast(client.peer.party, round, votes, request),
)
WATCH_LABELS = Watch(method="WatchLabels", handle=lambda server, client, after: server.follow(after), resume=_resume)
ACKNOWLEDGE_LABELS = Unary(method="AcknowledgeLabels", handle=lambda server, client, round: None, delivers=True)


class ServerPort(PeerPort):
    """Implements `Pooling`."""

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(POOLING, context, channel)

    def cast(self, round: int, votes: list[int], request: SignedStatement) -> SignedStatement:
        """See `Pooling.cast`."""
        receipt: SignedStatement = self._call(CAST, round, votes, request)
        return receipt

    def labels(self, after: int) -> Iterator[Labels | None]:
        """See `Pooling.labels`."""
        return self._watch(WATCH_LABELS, after)

    def acknowledge(self, round: int) -> None:
        """See `Pooling.acknowledge`."""
        self._call(ACKNOWLEDGE_LABELS, round)


POOLING = Service(
    pb.DESCRIPTOR.services_by_name["Pooling"],
    (CAST, WATCH_LABELS, ACKNOWLEDGE_LABELS),
    client=ServerPort,
    terms=pb.VotePoolTerms,
)

ASK = Waiting(method="Ask", handle=lambda oracle, student, *asked: oracle.ask(*asked[:-1]), cancels=True, metered=True)
CONVERSE = Stream(
    method="Converse",
    handle=lambda oracle, student, *asked: oracle.ask(*asked[:-1]),
    key=lambda message: message.number,
    most=128,
    metered=True,
    withdraw=lambda request: pb.AskRequest(number=request.number, withdrawn=True),
    is_withdrawal=lambda request: request.withdrawn,
)
TALLY = Unary(method="Tally", handle=lambda oracle, student: oracle.tally())
SETTLE = Unary(method="Settle", handle=lambda oracle, student, request: oracle.settle(request))


class OraclePort(PeerPort):
    """Implements `Questioning`."""

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(QUESTIONING, context, channel)

    def ask(self, number: int, input: int, within_ms: int) -> Future[Answered]:
        """See `Questioning.ask`; on one stream."""
        return self._ask(CONVERSE, number, input, within_ms, False)

    def ask_alone(self, number: int, input: int, within_ms: int) -> Future[Answered]:
        """The same by a call of its own."""
        return self._ask(ASK, number, input, within_ms, False)

    def tally(self) -> Tally:
        """See `Questioning.tally`."""
        tally: Tally = self._call(TALLY)
        return tally

    def settle(self, request: SignedStatement) -> SignedStatement:
        """See `Questioning.settle`."""
        receipt: SignedStatement = self._call(SETTLE, request)
        return receipt


QUESTIONING = Service(
    pb.DESCRIPTOR.services_by_name["Questioning"],
    (ASK, CONVERSE, TALLY, SETTLE),
    client=OraclePort,
    terms=pb.QuestionTerms,
)
