"""A pool that many clients join; the state of either role follows from its journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from comity.contract import Json
from comity.errors import ComityError, RoundOutOfOrder, SessionFailed
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.replayable_stream import ReplayableStream
from comity.session.waiting import Reason
from teacher_votes.teaching import requests_of, require_fitting, subject
from teacher_votes.terms import VotePoolTerms
from teacher_votes.voting import agreement, majority

CLIENTS = Reason("clients", "as many clients as the session is for", "they join with comity join", expires=False)

Labels = tuple[int, list[int]]
"""A round, and what most voted for in it."""


class Pooling(Protocol):
    """What a client asks of the server."""

    def cast(self, round: int, votes: list[int], request: SignedStatement) -> SignedStatement:
        """Votes in a round; returns the receipt."""

    def labels(self, after: int) -> Iterator[Labels | None]:
        """The labels of the rounds after one; None where there is nothing until others have had their turn."""

    def acknowledge(self, round: int) -> None:
        """The client has the labels of a round."""


class Client:
    """The initiator. Records: `finished`, with the labels of a round.

    Args:
        context: Its context opposite the server.
        server: The port to the server.
    """

    def __init__(self, context: PeerContext, server: Pooling) -> None:
        self._context = context
        self._server = server
        self._finished: list[Any] = [each.fields for each in context.journal.records() if each.kind == "finished"]

    def work(self) -> Iterator[None]:
        """See `Initiator.work`."""
        self._cast()
        if len(self._finished) == self._context.contract.rounds:
            return
        for labels in self._server.labels(len(self._finished)):
            if labels is None:
                yield
                continue
            self._finish(*labels)
            self._cast()

    def outcome(self) -> Outcome:
        """See `Initiator.outcome`."""
        return Outcome((), _metrics(self._finished))

    def _cast(self) -> None:
        context, round = self._context, len(self._finished) + 1
        if round <= context.contract.rounds:
            units, about = requests_of(context.contract, round), subject(context.contract, round)
            request = context.receipt_book.sign("request", units, about)
            receipt = self._server.cast(round, context.task.votes(round), request)
            context.receipt_book.accept(receipt, "receipt", units, about)

    def _finish(self, round: int, labels: list[int]) -> None:
        self._server.acknowledge(round)
        share = agreement(self._context.task.votes(round), labels)
        fields: dict[str, Json] = {"voted": len(labels), "labels": [*labels], "agreement": share}
        self._context.journal.append("finished", round, **fields)
        self._finished.append(fields)
        self._context.observe(Event("round-finished", round, fields))


@dataclass
class Member:
    """A client, as the server knows it.

    Attributes:
        context: The server's context opposite it.
        gone: Whether it has left.
        votes: Its votes, by round.
    """

    context: PeerContext
    gone: bool = False
    votes: dict[int, list[int]] = field(default_factory=dict)


class Server:
    """The acceptor. Records: `cast`, with a client's votes, `left`, and `finished`, with the labels of a round.

    Args:
        session: Its session context.
        contexts: Its contexts opposite the clients that have joined.
    """

    def __init__(self, session: SessionContext, contexts: Sequence[PeerContext]) -> None:
        self._session = session
        terms = session.contract.terms
        self._clients = terms.clients if isinstance(terms, VotePoolTerms) else 0
        self._members = {context.peer.party: Member(context) for context in contexts}
        self._labels: ReplayableStream[Labels] = ReplayableStream()
        self._finished: list[Any] = []
        self.failure: ComityError | None = None
        for record in session.journal.records():
            fields: Any = record.fields
            match record.kind:
                case "cast" if fields["party"] in self._members:
                    self._members[fields["party"]].votes[record.round] = fields["votes"]
                case "left" if fields["party"] in self._members:
                    self._members[fields["party"]].gone = True
                case "finished":
                    self._take(record.round, fields)
        if len(self._members) < self._clients:
            session.waits.begin(CLIENTS)

    @property
    def over(self) -> bool:
        """See `JoinedAcceptor.over`."""
        ended = self._labels.closed or self.failure is not None
        return ended and all(each.gone for each in self._members.values())

    def wakes_in(self) -> float | None:
        """See `JoinedAcceptor.wakes_in`."""
        return 0.0 if self.over else None

    def admit(self, context: PeerContext) -> None:
        """See `JoinedAcceptor.admit`."""
        if self.failure is not None:
            raise self.failure
        party = context.peer.party
        if party not in self._members and len(self._members) == self._clients:
            raise RoundOutOfOrder("the pool is full", expected=f"{self._clients} clients", received="one more")
        self._members.setdefault(party, Member(context)).gone = False
        if len(self._members) == self._clients:
            self._session.waits.end(CLIENTS)

    def leave(self, party: str) -> None:
        """See `JoinedAcceptor.leave`."""
        member = self._members.get(party)
        if member is not None and not member.gone:
            self._session.journal.append("left", len(self._finished), party=party)
            member.gone = True

    def cast(self, party: str, round: int, votes: list[int], request: SignedStatement) -> SignedStatement:
        """See `Pooling.cast`."""
        member, contract = self._members[party], self._session.contract
        if round > min(len(self._finished) + 1, contract.rounds):
            raise RoundOutOfOrder("that round is not open", expected=len(self._finished) + 1, received=round)
        require_fitting(contract, party, votes)
        units, about = requests_of(contract, round), subject(contract, round)
        member.context.receipt_book.accept(request, "request", units, about)
        if round not in member.votes:
            self._session.journal.append("cast", round, party=party, votes=[*votes])
            member.votes[round] = votes
        return member.context.receipt_book.sign("receipt", units, about)

    def follow(self, after: int) -> tuple[ReplayableStream[Labels], int]:
        """The labels of all rounds, and where they go on after one."""
        return self._labels, after

    def advance(self) -> bool:
        """See `Steppable.advance`: ends the round that all have voted in."""
        round, members = len(self._finished) + 1, [self._members[each] for each in sorted(self._members)]
        if round > self._session.contract.rounds or len(members) < self._clients:
            return False
        if any(each.gone and round not in each.votes for each in members):
            raise SessionFailed("a client has left the pool", expected=f"{self._clients} to the end")
        if not all(round in each.votes for each in members):
            return False
        votes = [each.votes[round] for each in members]
        labels = majority(votes)
        share = sum(agreement(each, labels) for each in votes) / len(votes)
        fields: dict[str, Json] = {"voted": len(labels), "labels": [*labels], "agreement": share}
        self._session.journal.append("finished", round, **fields)
        self._take(round, fields)
        self._session.observe(Event("round-finished", round, fields))
        return True

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`."""
        self.failure = self.failure or error
        self._labels.close(error)

    def outcome(self) -> Outcome:
        """See `JoinedAcceptor.outcome`."""
        return Outcome((), _metrics(self._finished))

    def _take(self, round: int, fields: Any) -> None:
        self._finished.append(fields)
        self._labels.append((round, fields["labels"]))
        if round == self._session.contract.rounds:
            self._labels.close()


def _metrics(rounds: Sequence[Any]) -> dict[str, Json]:
    return {
        "agreement": sum(each["agreement"] for each in rounds) / max(1, len(rounds)),
        "labels": [label for each in rounds for label in each["labels"]],
    }
