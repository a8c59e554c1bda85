"""The clients of a session, as the party that gathers knows them: who has joined, what each submitted, is due, and has to know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from comity.errors import PolicyRefusal, RoundOutOfOrder
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext
from comity.session.gathering.messages import Answer, Details, News
from comity.session.replayable_stream import ReplayableStream


@dataclass
class Member(Generic[Details]):
    """A client.

    Attributes:
        context: This party's context opposite it.
        submitted: Digests of its blobs, by round: of the one that is open, and of the last that it took part in.
        samples: Samples that it says are behind them, likewise.
        sat_out: The last round in which it said that it submits nothing.
        confirmed: The last round whose blob it has signed for.
        details: What it gets for the last round that it took part in.
        statement: That, signed, once the client has signed for its blob.
        gone: Whether it has left.
        news: What it has to know, as it becomes known.
        excluded: Why it takes part in no more rounds, where that is so.
    """

    context: PeerContext
    submitted: dict[int, bytes] = field(default_factory=dict)
    samples: dict[int, int] = field(default_factory=dict)
    sat_out: int = 0
    confirmed: int = 0
    details: Details | None = None
    statement: SignedStatement | None = None
    gone: bool = False
    news: ReplayableStream[News[Details]] = field(default_factory=ReplayableStream)
    excluded: PolicyRefusal | None = None

    @property
    def answer(self) -> Answer[Details] | None:
        """What it gets for the last round that it took part in, once it has signed for its blob."""
        if self.details is None or self.statement is None:
            return None
        return Answer(self.details, self.statement)

    @property
    def is_out(self) -> bool:
        """Whether it has left or is excluded."""
        return self.gone or self.excluded is not None

    def state_answer(self, kind: str) -> bool:
        """Signs what it gets, and gives it out, if it has signed for its blob; returns whether that is so.

        Args:
            kind: Egress kind of what it gets.
        """
        details, context = self.details, self.context
        if details is None or self.confirmed != details.round:
            return False
        self.statement = context.receipt_book.sign(
            "statement", in_round(details.round), details.subject, details.content
        )
        if details.blob in context.blobs:
            context.blobs.publish(details.blob, kind, in_round(details.round))
        return True

    def due(self, details: Details) -> None:
        """Takes note of what it gets for a round, before it is signed; blobs of earlier rounds are forgotten."""
        self.submitted = {details.round: self.submitted[details.round]}
        self.samples = {details.round: self.samples[details.round]}
        self.details = details
        self.statement = None

    def require_admitted(self) -> None:
        """Checks that it is not excluded.

        Raises:
            PolicyRefusal: It is.
        """
        if self.excluded is not None:
            raise self.excluded

    def tell(self, opened: int | None, over: int | None) -> None:
        """Lets it know what is new to it: what it is due, then what is open.

        Args:
            opened: The round that is open, if one is.
            over: The last round, if all are over.
        """
        details, answer = self.details, self.answer
        if details is not None and answer is None:
            # What it is due is given out when it has signed for its blob, and nothing else before that.
            self.news.show([News("opened", details.round)])
            return
        news: list[News[Details]] = [] if answer is None else [News("settled", answer.details.round, answer)]
        if self.excluded is not None:
            self.news.show(news)
            self.news.close(self.excluded)
            return
        if opened is not None and (details is None or details.round < opened):
            news.append(News("opened", opened))
        elif over is not None:
            news.append(News("over", over))
        self.news.show(news)
        if over is not None:
            self.news.close()


class Members(Generic[Details]):
    """Those who have joined; from the first round on, the session's clients.

    Args:
        contexts: This party's contexts opposite those who have joined.
    """

    def __init__(self, contexts: Sequence[PeerContext]) -> None:
        self._members: dict[str, Member[Details]] = {context.peer.party: Member(context) for context in contexts}
        self.clients: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Member[Details]]:
        """All of them, those who have left as well."""
        return iter(self._members.values())

    def __len__(self) -> int:
        """How many they are."""
        return len(self._members)

    def __contains__(self, party: str) -> bool:
        """Whether a party is one of them."""
        return party in self._members

    def __getitem__(self, party: str) -> Member[Details]:
        """One of them.

        Raises:
            RoundOutOfOrder: The party is none: the first round began without it.
        """
        if party not in self._members:
            raise self.began_without(party)
        return self._members[party]

    @property
    def here(self) -> list[str]:
        """Those who have not left and are not excluded.

        They are in the order in which they joined; from the first round on, in that of the clients.
        """
        return [party for party in self.clients or self._members if not self._members[party].is_out]

    def join(self, context: PeerContext) -> Member[Details]:
        """Adds a client."""
        return self._members.setdefault(context.peer.party, Member(context))

    def begin(self, clients: Sequence[str]) -> None:
        """Has the session begin with these, in this order; the others are told that it began without them."""
        self.clients = tuple(clients)
        for party in self._members.keys() - set(clients):
            self._members[party].news.close(self.began_without(party))
        self._members = {party: self._members[party] for party in clients}

    def began_without(self, party: str) -> RoundOutOfOrder:
        """The error of a party that comes after the first round has begun."""
        return RoundOutOfOrder(
            "the session has begun",
            expected=f"one of its {len(self.clients)} clients",
            received=party,
            action="join the next session before its first round",
        )
