"""The clients of a session, as the server knows them: who has joined, what each submitted, is due, and has to know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from comity.blobs.session_blobs import Expectation
from comity.errors import PolicyRefusal, RoundOutOfOrder
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.protocols.gradient_rewards.messages import News, Reward, RewardDetails
from comity.session.contexts import PeerContext
from comity.session.replayable_stream import ReplayableStream
from comity.tensors import Layout


@dataclass
class Member:
    """A client.

    Attributes:
        context: The server's context opposite it.
        submitted: Digests of its updates, by round: of the one that is open, and of the last that it took part in.
        sat_out: The last round in which it said that it submits nothing.
        confirmed: The last round whose update it has signed for.
        details: What it gets for the last round that it took part in.
        statement: That, signed, once the client has signed for its update.
        gone: Whether it has left.
        news: What it has to know, as it becomes known.
        excluded: Why it takes part in no more rounds, where that is so.
    """

    context: PeerContext
    submitted: dict[int, bytes] = field(default_factory=dict)
    sat_out: int = 0
    confirmed: int = 0
    details: RewardDetails | None = None
    statement: SignedStatement | None = None
    gone: bool = False
    news: ReplayableStream[News] = field(default_factory=ReplayableStream)
    excluded: PolicyRefusal | None = None

    @property
    def reward(self) -> Reward | None:
        """What it gets for the last round that it took part in, once it has signed for its update."""
        if self.details is None or self.statement is None:
            return None
        return Reward(self.details, self.statement)

    @property
    def is_out(self) -> bool:
        """Whether it has left or is excluded."""
        return self.gone or self.excluded is not None

    def state_reward(self) -> bool:
        """Signs what it gets, and gives it out, if it has signed for its update; returns whether that is so."""
        details, context = self.details, self.context
        if details is None or self.confirmed != details.round:
            return False
        self.statement = context.receipt_book.sign(
            "statement", in_round(details.round), details.subject, details.content
        )
        if details.entries in context.blobs:
            context.blobs.publish(details.entries, "reward", in_round(details.round))
        return True

    def due(self, details: RewardDetails) -> None:
        """Takes note of what it gets for a round, before it is signed; updates of earlier rounds are forgotten."""
        self.submitted = {details.round: self.submitted[details.round]}
        self.details = details
        self.statement = None

    def exclude(self, round: int, why: str, rounds: int) -> None:
        """Takes note that it takes part in no more rounds; what it is due, it gets."""
        self.excluded = PolicyRefusal(
            f"this client was excluded after round {round}",
            expected="updates from data of its own",
            received=f"{why}, in {rounds} rounds in a row",
            action="ask the server's operator; a new session's terms may have free_riders = \"warn\"",
        )

    def require_admitted(self) -> None:
        """Checks that it is not excluded.

        Raises:
            PolicyRefusal: It is.
        """
        if self.excluded is not None:
            raise self.excluded

    def expect_update(self, round: int | None, layout: Layout) -> None:
        """Lets it upload its update of a round; None for nothing."""
        expected = [] if round is None else [Expectation("update", in_round(round), layout.size, 1, layout.verify)]
        self.context.blobs.expect(*expected)

    def tell(self, opened: int | None, over: int | None) -> None:
        """Lets it know what is new to it: what it is due, then what is open.

        Args:
            opened: The round that is open, if one is.
            over: The last round, if all are over.
        """
        details, reward = self.details, self.reward
        if details is not None and reward is None:
            # What it is due is given out when it has signed for its update, and nothing else before that.
            self.news.show([News("opened", details.round)])
            return
        news = [] if reward is None else [News("settled", reward.details.round, reward)]
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


class Members:
    """Those who have joined; from the first round on, the session's clients.

    Args:
        contexts: The server's contexts opposite those who have joined.
    """

    def __init__(self, contexts: Sequence[PeerContext]) -> None:
        self._members = {context.peer.party: Member(context) for context in contexts}
        self.clients: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Member]:
        """All of them, those who have left as well."""
        return iter(self._members.values())

    def __len__(self) -> int:
        """How many they are."""
        return len(self._members)

    def __contains__(self, party: str) -> bool:
        """Whether a party is one of them."""
        return party in self._members

    def __getitem__(self, party: str) -> Member:
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

    def join(self, context: PeerContext) -> Member:
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
