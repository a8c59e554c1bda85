"""Where the rounds of a gathering stand, as its journal says: who is in it, what is open, and what each client is told."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic

from comity.blobs.session_blobs import Expectation
from comity.contract import EgressKind, Retention
from comity.errors import ComityError, RoundOutOfOrder
from comity.ledger.ledger import in_round
from comity.session.contexts import PeerContext, SessionContext
from comity.session.gathering.members import Member, Members
from comity.session.gathering.messages import Details
from comity.session.stopping import RoundProgress, StoppingTerms, tests_of
from comity.store.store import Record
from comity.tensors import Layout


class Phase(Enum):
    """What a gathering is at."""

    JOINING = auto()
    """The first clients join."""
    OPEN = auto()
    """A round takes blobs."""
    OVER = auto()
    """All rounds are settled."""
    FAILED = auto()
    """The session cannot go on."""


@dataclass(frozen=True, slots=True)
class GatheringPlan:
    """How rounds are gathered.

    Attributes:
        clients: With how many the first round opens.
        min_clients: Fewest that a round is settled with when its deadline has passed.
        deadline_s: How long a round stays open for those who are late, in seconds, by round.
        submits: Egress kind of what clients submit.
        layout: What its tensors are.
        answers: Egress kind of what each gets.
        kept: How long a client's blob is kept.
    """

    clients: int
    min_clients: int
    deadline_s: Callable[[int], float]
    submits: EgressKind
    layout: Layout
    answers: EgressKind
    kept: Retention = "round"


class GatheringState(ABC, Generic[Details]):
    """Follows from a journal.

    Records: `begun` with the clients in their order, `submitted`, `sat-out`, `confirmed`, `left`, `returned`, and `finished`,
    which holds what a round came to; who was in time is decided once, by that record.

    A role's own state is made before `__init__` of this class, which replays the journal.

    Args:
        session: This party's context.
        contexts: Its contexts opposite the clients that have joined.
        plan: How rounds are gathered.
    """

    def __init__(self, session: SessionContext, contexts: Sequence[PeerContext], plan: GatheringPlan) -> None:
        self._session = session
        self._plan = plan
        self._members: Members[Details] = Members(contexts)
        self._round = 0
        self._phase = Phase.JOINING
        self._failure: ComityError | None = None
        self._finished: list[dict[str, Any]] = []
        self._opened_at = time.monotonic()
        for record in session.journal.records():
            self._replay(record)
        self._expect_blobs()

    @abstractmethod
    def _began(self, samples: Sequence[int]) -> None:
        """Takes note of how many samples each client has, when the first round begins; nothing where it does not matter."""

    @abstractmethod
    def _take(self, fields: dict[str, Any]) -> None:
        """Takes note of what a round came to."""

    @abstractmethod
    def _details(self, round: int, fields: dict[str, Any], client: int) -> Details | None:
        """What a client gets for a round, by its place; None where it took no part."""

    def _enough(self) -> str | None:
        """Why no more rounds are opened, before all that were bought; None where they are."""
        terms, contract = self._session.contract.terms, self._session.contract
        if not isinstance(terms, StoppingTerms):
            return None
        return terms.reason_to_stop(contract, [RoundProgress(tests_of(each)) for each in self._finished])

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do here for anyone.

        All rounds are settled, or the session has failed, and the clients have left; or a round's deadline has passed since.
        """
        return self._is_ended and (all(each.is_out for each in self._members) or not self._seconds_left)

    @property
    def _is_ended(self) -> bool:
        return self._phase in {Phase.OVER, Phase.FAILED}

    @property
    def _seconds_left(self) -> float:
        return max(0.0, self._opened_at + self._plan.deadline_s(self._round) - time.monotonic())

    @property
    def failure(self) -> ComityError | None:
        """Why the session cannot go on, where that is so."""
        return self._failure

    @property
    def round(self) -> int:
        """The round that is open, or the last one; 0 before the first."""
        return self._round

    def _replay(self, record: Record) -> None:
        """Does again, without the work, what a record says was done."""
        fields: Any = record.fields
        match record.kind:
            case "left" | "returned" if fields["party"] in self._members:
                self._members[fields["party"]].gone = record.kind == "left"
            case "begun":
                self._members.begin(fields["clients"])
                self._began(fields["samples"])
                self._open(1)
            case "confirmed":
                member = self._members[fields["party"]]
                member.confirmed = record.round
                if member.state_answer(self._plan.answers):
                    self._tell(member)
            case "sat-out":
                self._members[fields["party"]].sat_out = record.round
            case "submitted":
                member = self._members[fields["party"]]
                member.submitted[record.round] = bytes.fromhex(fields["blob"])
                member.samples[record.round] = fields["samples"]
            case "finished":
                self._close(record.round, fields)

    def _close(self, round: int, fields: dict[str, Any]) -> None:
        """Takes note of a round that is settled, states what each client gets, and opens the next."""
        self._take(fields)
        self._finished.append(fields)
        for client, party in enumerate(self._members.clients):
            details = self._details(round, fields, client)
            if details is None:
                continue
            member = self._members[party]
            member.due(details)
            if member.state_answer(self._plan.answers):
                self._tell(member)
        if round < self._session.contract.rounds and self._enough() is None:
            self._open(round + 1)
        else:
            self._phase = Phase.OVER
            self._opened_at = time.monotonic()
            self._tell(*self._members)

    def _open(self, round: int) -> None:
        self._round = round
        self._phase = Phase.OPEN
        self._opened_at = time.monotonic()
        self._tell(*self._members)

    def _tell(self, *members: Member[Details]) -> None:
        """Lets clients know what is new to them."""
        opened = self._round if self._phase is Phase.OPEN else None
        over = self._round if self._phase is Phase.OVER else None
        for member in members:
            member.tell(opened, over)

    def _require_open(self, member: Member[Details], round: int) -> None:
        """Checks that a client takes part, and that a round is the one that is open.

        Raises:
            PolicyRefusal: The client is excluded.
            RoundOutOfOrder: Another round is open, or none.
        """
        member.require_admitted()
        if self._phase is not Phase.OPEN or round != self._round:
            on = f"round {self._round}" if self._phase is Phase.OPEN else "no round now"
            raise RoundOutOfOrder(
                f"round {round} is not open",
                expected=on,
                received=f"round {round}",
                action="go on with the one that is",
            )

    def _expect_blobs(self) -> None:
        for member in self._members:
            self._expect_of(member)

    def _expect_of(self, member: Member[Details]) -> None:
        """Lets a client upload its blob of the round that is open."""
        layout = self._plan.layout
        expected = (
            [Expectation(self._plan.submits, in_round(self._round), layout.size, 1, layout.verify)]
            if self._phase is Phase.OPEN
            else []
        )
        member.context.blobs.expect(*expected)

    def _member(self, party: str) -> Member[Details]:
        """A client.

        Raises:
            ComityError: The session has failed.
            RoundOutOfOrder: The party is none: the first round began without it.
        """
        if self._failure is not None:
            raise self._failure
        return self._members[party]
