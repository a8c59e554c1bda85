"""The provider: takes the gradient of its own task at the learner's model, and sends what may leave of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from comity import faults
from comity.blobs.session_blobs import Expectation
from comity.contract import Json, Release
from comity.errors import ComityError, ConflictingOffer, MalformedMessage, RoundOutOfOrder, TrainingDiverged
from comity.ledger.ledger import Units, in_round
from comity.ledger.receipts import SignedStatement
from comity.protocols.nash_bargaining.messages import KEPT, Gradient
from comity.protocols.nash_bargaining.releasing import released
from comity.protocols.nash_bargaining.terms import NashBargainingTerms
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.tensors import Layout, State

_MODELS = 3
"""Models that a learner may upload before it asks: of a round that it asks for, and of some that it gave up."""


class Provider:
    """The helping role; implements `Bargaining` in process.

    It is single-threaded: it trains when nothing else is asked of it. Its state follows from its journal: records
    `finished`, with what was sent in a round, the own head, and what the guard keeps.

    Args:
        context: Its place opposite the learner.
    """

    def __init__(self, context: PeerContext) -> None:
        if not isinstance(context.contract.terms, NashBargainingTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="nash_bargaining", received=context.contract.protocol
            )
        self._context = context
        self._terms = context.contract.terms
        self._task: Any = context.task
        self._asked: dict[int, tuple[bytes, Future[Gradient]]] = {}
        self._failure: ComityError | None = None
        self._finished: dict[int, dict[str, Any]] = {}
        for record in context.journal.records():
            if record.kind == "finished":
                self._finished[record.round] = dict(record.fields)
        if self._finished:
            # Whoever was told of the last gradient before this node was killed may have yet to fetch it.
            last = max(self._finished)
            self._publish(last, self._finished[last])
        self._expect()

    def differentiate(
        self,
        round: int,
        model: bytes,
        request: SignedStatement,
        withdrawals: Sequence[SignedStatement],
        arrived: Sequence[Units] = (),
    ) -> Future[Gradient]:
        """See `Bargaining.differentiate`."""
        context, last = self._context, max([*self._finished, *self._asked], default=0)
        if self._failure is not None:
            raise self._failure
        if not last <= round <= context.contract.rounds and round not in self._finished:
            raise RoundOutOfOrder(
                "no such round is open",
                expected=f"a round from {last} to {context.contract.rounds}",
                received=round,
                action="go on with the next round",
            )
        # What has arrived, the ledger notes once this is done: see the call.
        if len(arrived) > context.contract.rounds:
            raise MalformedMessage(
                "more rounds have arrived than there are",
                expected=f"at most {context.contract.rounds} ranges",
                received=len(arrived),
                action="name each range once",
            )
        context.receipt_book.accept_withdrawals(withdrawals)
        for each in [*self._asked]:
            if each < round:
                # The learner went on without it.
                del self._asked[each]
        context.receipt_book.accept(request, "request", in_round(round), model)
        done = self._finished.get(round)
        if done is not None:
            answer: Future[Gradient] = Future()
            answer.set_result(self._answer(round, done))
            return answer
        known, answer = self._asked.setdefault(round, (model, Future()))
        if known != model:
            raise ConflictingOffer(
                f"round {round} was asked for at another model",
                expected=known.hex(),
                received=model.hex(),
                action="a round's model cannot change",
            )
        # Whoever asks again, after a cut, waits for the same answer.
        return answer

    def acknowledge(self, units: Units) -> None:
        """See `Bargaining.acknowledge`."""
        del units
        if self._failure is not None:
            raise self._failure

    def advance(self) -> bool:
        """See `Steppable.advance`: a round's gradient."""
        for round, (model, _) in self._asked.items():
            fields = self._made(round, model)
            # Whoever asked is told as well where there is no answer: `fail` looks for those who wait.
            gradient = self._answer(round, fields)
            self._asked.pop(round)[1].set_result(gradient)
            return True
        return False

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`."""
        self._failure = error
        for _, answer in self._asked.values():
            answer.set_exception(error)
        self._asked.clear()

    def _made(self, round: int, model: bytes) -> dict[str, Any]:
        """Makes durable what is sent in a round, and what the next goes on from.

        Raises:
            TrainingDiverged: The gradient is NaN or infinite.
        """
        context, task, units = self._context, self._task, in_round(round)
        began, terms = time.monotonic(), self._terms
        before = self._finished[max(self._finished)] if self._finished else {}
        state = task.layout.view(context.blobs.get(model).data)
        guard = task.guard(state, self._kept(before.get("guard")))
        faults.point("training")
        local = task.gradient(state, self._kept(before.get("head")), terms, place=round, guard=guard)
        if not all(bool(each.isfinite().all()) for each in local.gradients.values()):
            raise TrainingDiverged(
                f"training diverged in round {round}",
                expected="a finite gradient",
                received="NaN or infinity",
                action="lower the session's local_learning_rate",
            )
        sent = released(context, task, local.gradients, guard, units, clip_norm=terms.clip_norm)
        fields: dict[str, Json] = {
            "model": model.hex(),
            "gradient": sent.blob,
            "length": sent.length,
            "rows_held": sent.held,
            "head": self._added(local.head),
            "guard": self._added({} if guard is None else guard.kept()),
            "samples": task.samples,
            "seconds": time.monotonic() - began,
        }
        context.journal.append("finished", round, **fields)
        self._finished[round] = fields
        context.blobs.keep({bytes.fromhex(each) for each in self._needed(fields)})
        self._expect()
        context.observe(Event("round-finished", round, fields))
        return fields

    def _answer(self, round: int, fields: dict[str, Any]) -> Gradient:
        context, units = self._context, in_round(round)
        blob = None if fields["gradient"] is None else bytes.fromhex(fields["gradient"])
        self._publish(round, fields)
        receipt = context.receipt_book.sign("receipt", units, bytes.fromhex(fields["model"]))
        return Gradient(blob, Release(samples=fields["samples"], kept=KEPT), receipt)

    def _publish(self, round: int, fields: dict[str, Any]) -> None:
        """Lets the learner have a round's gradient, where there is one and it is still here."""
        blob = None if fields["gradient"] is None else bytes.fromhex(fields["gradient"])
        if blob is not None and blob in self._context.blobs:
            self._context.blobs.publish(blob, "update", in_round(round))

    def _needed(self, fields: dict[str, Any]) -> list[str]:
        return [fields[name] for name in ("gradient", "head", "guard", "model") if fields[name] is not None]

    def _kept(self, digest: str | None) -> State | None:
        return None if digest is None else Layout.unpack(self._context.blobs.get(bytes.fromhex(digest)))

    def _added(self, state: State) -> str | None:
        return self._context.blobs.add(Layout.of(state).pack(state)).hex if state else None

    def _expect(self) -> None:
        """Lets the learner upload the models of the rounds that are left."""
        context, done = self._context, max(self._finished, default=0)
        left = context.contract.rounds - done
        if not left:
            context.blobs.expect()
            return
        layout = self._task.layout
        units = Units("round", done + 1, left)
        context.blobs.expect(Expectation("checkpoint", units, layout.size, _MODELS, layout.verify))
