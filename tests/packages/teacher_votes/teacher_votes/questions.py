"""A student that asks an oracle thousands of small questions, which are charged together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Protocol

from comity.contract import Contract
from comity.errors import ComityError
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.metering.answers import AnswerMeter
from comity.session.metering.requests import RequestMeter
from comity.session.metering.tally import Answered, Metered, Tally, Wire
from comity.session.outcome import Outcome
from comity.session.request_queue import Queued, RequestQueue
from teacher_votes.terms import voting_terms

_AT_ONCE = 64


def metered(contract: Contract) -> Metered:
    """What is charged: each question that is answered, once."""
    return Metered("request", "vote", "vote", bought=voting_terms(contract).queries, credit=1000)


class Questioning(Protocol):
    """What a student asks of an oracle."""

    def ask(self, number: int, input: int, within_ms: int) -> Future[Answered]:
        """The number and the label of one of the first round's public inputs."""

    def tally(self) -> Tally:
        """See `Settling.tally`."""

    def settle(self, request: SignedStatement) -> SignedStatement:
        """See `Settling.settle`."""


class Inquirer:
    """The initiator. Records: those of `RequestMeter`, and `finished`, with the labels of a round.

    Args:
        context: Its context opposite the oracle.
        oracle: The port to it.
    """

    def __init__(self, context: PeerContext, oracle: Questioning) -> None:
        self._context = context
        self._oracle = oracle
        self._meter = RequestMeter(context, metered(context.contract))
        self._labels: list[list[int]] = [
            list(each.fields["labels"])  # type: ignore[arg-type]
            for each in context.journal.records()
            if each.kind == "finished"
        ]

    def work(self) -> Iterator[None]:
        """See `Initiator.work`; each round asks its share of what is bought."""
        contract = self._context.contract
        share = voting_terms(contract).queries // contract.rounds
        for round in range(len(self._labels) + 1, contract.rounds + 1):
            numbers = range((round - 1) * share + 1, round * share + 1)
            self._meter.use(numbers[-1])
            labels = [self._noted(each) for each in self._asked(numbers)]
            self._meter.settle(self._oracle)
            self._context.journal.append("finished", round, labels=[*labels], voted=len(labels))
            self._labels.append(labels)
            self._context.observe(Event("round-finished", round, {"voted": len(labels)}))
            yield

    def outcome(self) -> Outcome:
        """See `Initiator.outcome`."""
        return Outcome((), {"labels": [label for each in self._labels for label in each], "agreement": 1.0})

    def _asked(self, numbers: range) -> Iterator[Future[Answered]]:
        """Asks, some at a time, in order: each round for each input once more."""
        for at in range(0, len(numbers), _AT_ONCE):
            asked = numbers[at : at + _AT_ONCE]
            yield from [self._oracle.ask(each, (each - 1) % len(numbers), 0) for each in asked]

    def _noted(self, answer: Future[Answered]) -> int:
        answered = answer.result()
        number, label = answered.value
        self._meter.answered(number, answered.asked, answered.answered)
        return int(label)


class Oracle:
    """The acceptor: answers, in one go, whatever is asked by then.

    Args:
        session: Its session context.
        context: Its context opposite the student.
    """

    def __init__(self, session: SessionContext, context: PeerContext) -> None:
        self._session = session
        self._context = context
        self._meter = AnswerMeter(context, metered(context.contract))
        self._queue = RequestQueue(4 * _AT_ONCE)
        self._labels: list[int] | None = None
        self._failure: ComityError | None = None
        self.batches: list[int] = []

    def ask(self, wire: Wire, number: int, input: int, within_ms: int) -> Future[tuple[int, int]]:
        """See `Questioning.ask`."""
        if self._failure is not None:
            raise self._failure
        self._meter.require_open(number)
        return self._queue.put((wire, number, input), wire.ends(within_ms / 1000))

    def tally(self) -> Tally:
        """See `Questioning.tally`."""
        return self._meter.tally()

    def settle(self, request: SignedStatement) -> SignedStatement:
        """See `Questioning.settle`."""
        return self._meter.settle(request)

    def advance(self) -> bool:
        """See `Steppable.advance`."""
        waited = self._queue.take(_AT_ONCE)
        taken = self._meter.open(waited, lambda each: (each.request[1], 1))
        if not taken:
            return bool(waited)
        answers = [self._answer(each) for each in taken]
        sizes = zip(taken, answers, strict=True)
        self._meter.answer([(answer[0], each.request[0].asked, each.request[0].size(answer)) for each, answer in sizes])
        self.batches.append(len(taken))
        for each, answer in zip(taken, answers, strict=True):
            each.answer.set_result(answer)
        return True

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`."""
        self._failure = error
        self._queue.fail(error)

    def _answer(self, queued: Queued) -> tuple[int, int]:
        _, number, input = queued.request
        if self._labels is None:
            self._labels = self._context.task.votes(1)
        return number, self._labels[input % len(self._labels)]
