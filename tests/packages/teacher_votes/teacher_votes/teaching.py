"""A student and its teachers; either's state follows from its journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from comity.contract import Contract, Json
from comity.errors import ComityError, MalformedMessage, RoundOutOfOrder, SessionFailed
from comity.ledger.ledger import Units
from comity.ledger.receipts import SignedStatement, subject_of
from comity.session.attendance import ask_those_present
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.waiting import Reason
from teacher_votes.settings import Settings
from teacher_votes.terms import TeacherVotesTerms, voting_terms
from teacher_votes.voting import agreement, majority

REVIEW = Reason(
    "review",
    "somebody to let the votes of round {subject} leave",
    "comity votes release {session}",
    counts=False,
)

CONFIRM = Reason(
    "confirm",
    "somebody to let the labels of round {subject} be learned",
    "comity votes learn {session}",
    counts=False,
)

Votes = tuple[list[int], SignedStatement, bytes | None]
"""Labels, the receipt of the request for them, and the digest of the scores behind them, where there are any."""


def requests_of(contract: Contract, round: int) -> Units:
    """The requests of a round, which statements are about."""
    queries = voting_terms(contract).queries
    return Units("request", (round - 1) * queries + 1, queries)


def subject(contract: Contract, round: int) -> bytes:
    """What statements about a round's requests state."""
    return subject_of({"inputs": round, "seed": contract.seed})


def require_fitting(contract: Contract, party: str, votes: Sequence[int]) -> None:
    """Checks that somebody's votes are votes on a round's inputs.

    Raises:
        MalformedMessage: They are not.
    """
    queries, classes = voting_terms(contract).queries, contract.task.heads[0].size
    if len(votes) != queries or max(votes, default=0) >= classes:
        expected = f"{queries} below {classes}"
        raise MalformedMessage(f"the votes of {party} do not fit", expected=expected, received=[*votes][:queries])


class Teaching(Protocol):
    """What a student asks of a teacher."""

    def vote(self, round: int, request: SignedStatement, withdrawals: Sequence[SignedStatement]) -> Future[Votes]:
        """The labels of a round's inputs; with what the student has gone on without since the last."""

    def acknowledge(self, units: Units) -> None:
        """The student has the votes."""


class Student:
    """The initiator. Records: `finished`, with the votes of a round, the labels and the student that has learned them.

    Args:
        contexts: Its contexts opposite the teachers.
        teachers: The ports to them, in the same order.
    """

    def __init__(self, contexts: Sequence[PeerContext], teachers: Sequence[Teaching]) -> None:
        self._contexts = contexts
        self._teachers = teachers
        self._own = contexts[0]
        self._told: dict[str, int] = {}
        self._desk = self._own.services.get("confirm")
        self._wait_s = self._own.settings.wait_s if isinstance(self._own.settings, Settings) else 60.0
        self._finished: list[dict[str, Any]] = [
            dict(each.fields) for each in self._own.journal.records() if each.kind == "finished"
        ]

    def work(self) -> Iterator[None]:
        """See `Initiator.work`."""
        contract = self._own.contract
        student = self._own.blobs.add(self._own.task.initial)
        if self._finished:
            student = self._own.blobs.get(bytes.fromhex(self._finished[-1]["student"]))
        for round in range(len(self._finished) + 1, contract.rounds + 1):
            units, about = requests_of(contract, round), subject(contract, round)
            teachers = list(zip(self._contexts, self._teachers, strict=True))
            questions = [(context, partial(self._ask, round, context, teacher)) for context, teacher in teachers]
            said = ask_those_present(units, questions, wait_s=self._wait_s)
            if not said:
                raise SessionFailed(f"no teacher is there in round {round}", expected="one or more", received="none")
            scores = []
            for context in self._contexts:
                if context.peer.party in said:
                    voted, receipt, digest = said[context.peer.party]
                    require_fitting(contract, context.peer.party, voted)
                    context.receipt_book.accept(receipt, "receipt", units, about)
                    scores += [] if digest is None else [self._own.blobs.get(digest)]
            votes = [said[party][0] if party in said else None for party in contract.acceptors]
            labels = self._own.task.most_scored(scores) if scores else majority([each[0] for each in said.values()])
            if self._desk is not None:
                self._own.waits.wait(CONFIRM, self._desk.question(contract.session, round), str(round))
            student = self._own.blobs.add(self._own.task.learn(student, round, labels))
            self._finish(round, votes, labels, student.hex)
            yield
        for context, teacher in zip(self._contexts, self._teachers, strict=True):
            self._acknowledge(context, teacher)

    def outcome(self) -> Outcome:
        """See `Initiator.outcome`."""
        rounds = self._finished
        metrics: dict[str, Json] = {
            "teachers": [context.peer.party for context in self._contexts],
            "agreement": sum(each["agreement"] for each in rounds) / max(1, len(rounds)),
            "agreement_by_round": [each["agreements"] for each in rounds],
            "labels": [label for each in rounds for label in each["labels"]],
            "votes": [each["votes"] for each in rounds],
        }
        student = bytes.fromhex(rounds[-1]["student"]) if rounds else self._own.task.initial.digest
        return Outcome((self._own.blobs.get(student),), metrics)

    def _ask(self, round: int, context: PeerContext, teacher: Teaching) -> Future[Votes]:
        contract, book = context.contract, context.receipt_book
        self._acknowledge(context, teacher)
        request = book.sign("request", requests_of(contract, round), subject(contract, round))
        return teacher.vote(round, request, book.untold)

    def _acknowledge(self, context: PeerContext, teacher: Teaching) -> None:
        """Tells a teacher of what has come from it since it was told; whoever was away hears it when it is back."""
        party = context.peer.party
        at = context.contract.acceptors.index(party)
        for round, each in enumerate(self._finished[self._told.get(party, 0) :], self._told.get(party, 0) + 1):
            if each["votes"][at] is not None:
                teacher.acknowledge(requests_of(context.contract, round))
            self._told[party] = round

    def _finish(self, round: int, votes: list[list[int] | None], labels: list[int], student: str) -> None:
        shares = [None if each is None else agreement(each, labels) for each in votes]
        present = [each for each in shares if each is not None]
        fields: dict[str, Any] = {"votes": votes, "labels": labels, "student": student, "agreements": shares}
        fields |= {"voted": len(labels), "agreement": sum(present) / len(present)}
        self._own.journal.append("finished", round, **fields)
        self._finished.append(fields)
        self._own.blobs.keep({bytes.fromhex(student)})
        self._own.observe(Event("round-finished", round, fields))


class Teacher:
    """The acceptor. Records: `released`, where votes waited for it, and `finished`, with the votes of a round.

    Args:
        session: Its session context.
        context: Its context opposite the student.
    """

    def __init__(self, session: SessionContext, context: PeerContext) -> None:
        self._waits = session.waits
        self._context = context
        self._is_reviewed = isinstance(context.settings, Settings) and bool(context.settings.review.listen)
        records = context.journal.records()
        self._released = {each.round for each in records if each.kind == "released"}
        self._votes: dict[int, Any] = {each.round: each.fields["votes"] for each in records if each.kind == "finished"}
        self._asked: dict[int, Future[Votes]] = {}
        self._failure: ComityError | None = None

    def vote(self, round: int, request: SignedStatement, withdrawals: Sequence[SignedStatement]) -> Future[Votes]:
        """See `Teaching.vote`."""
        contract, last = self._context.contract, max([*self._votes, *self._asked], default=0)
        if self._failure is not None:
            raise self._failure
        if not last <= round <= contract.rounds and round not in self._votes:
            raise RoundOutOfOrder("no such round is open", expected=f"from {last} on", received=round)
        self._context.receipt_book.accept_withdrawals(withdrawals)
        for each in [*self._asked]:
            if each < round:
                # The student went on without it.
                del self._asked[each]
                self._waits.end(REVIEW, str(each))
        self._context.receipt_book.accept(request, "request", requests_of(contract, round), subject(contract, round))
        if self._is_reviewed and round not in self._released:
            self._waits.begin(REVIEW, str(round))
        # Whoever asks again, after a cut, waits for the same answer.
        return self._asked.setdefault(round, Future())

    def advance(self) -> bool:
        """See `Steppable.advance`."""
        for round in [*self._asked]:
            if not self._is_reviewed or round in self._released:
                # Whoever asked is told as well where there is no answer: `fail` looks for those who wait.
                votes = self._answer(round)
                self._asked.pop(round).set_result(votes)
                return True
        return False

    def release(self) -> int:
        """Lets votes leave that wait; returns their round, 0 where there are none."""
        waiting = [round for round in self._asked if round not in self._released]
        for round in waiting:
            self._context.journal.append("released", round)
            self._released.add(round)
            self._waits.end(REVIEW, str(round))
        return max(waiting, default=0)

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`."""
        self._failure = error
        for asked in self._asked.values():
            asked.set_exception(error)
        self._asked.clear()

    def _answer(self, round: int) -> Votes:
        context, contract = self._context, self._context.contract
        receipt = context.receipt_book.sign("receipt", requests_of(contract, round), subject(contract, round))
        if round not in self._votes:
            votes = context.task.votes(round)
            context.journal.append("finished", round, votes=votes, voted=len(votes))
            self._votes[round] = votes
            context.observe(Event("round-finished", round, {"voted": len(votes)}))
        return self._votes[round], receipt, self._scores(round)

    def _scores(self, round: int) -> bytes | None:
        context, terms = self._context, self._context.contract.terms
        if not isinstance(terms, TeacherVotesTerms) or not terms.scored:
            return None
        units = requests_of(context.contract, round)
        scores = context.blobs.release(context.task.scores(round), "score", units)
        context.blobs.keep({scores.digest})
        context.blobs.publish(scores.digest, "score", units)
        return scores.digest
