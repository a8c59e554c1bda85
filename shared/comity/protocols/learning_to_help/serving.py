"""A client that stays on for its applications, once the rejector is there: until its operator ends the session."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future
from functools import partial
from typing import Any

from torch import Tensor

from comity import interruption
from comity.contract import Json
from comity.errors import MalformedMessage, NodeDraining, TooManyCalls, TransportError
from comity.inference.offers import Answer, Offer, Offers, Parameters, TensorSpec
from comity.protocols.learning_to_help.algorithm import rejector_scores
from comity.protocols.learning_to_help.asking import Purchase, RateCap
from comity.protocols.learning_to_help.drift import ServingReport
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.messages import MOST_INPUTS, Helping
from comity.protocols.learning_to_help.predictor import Decided, Predicted, Predictor, Route
from comity.protocols.learning_to_help.questions import outputs_in
from comity.protocols.learning_to_help.reject_rate import RejectRule
from comity.protocols.learning_to_help.settings import Settings
from comity.protocols.learning_to_help.task import HelpTask, helping_terms
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.metering.requests import RequestMeter
from comity.session.waiting import Reason

SERVING = Reason(
    "serving",
    "what applications ask, which it answers",
    "comity cancel {session} ends it well, with its result",
    expires=False,
    concludes=True,
)
"""A session that has done its rounds, and predicts."""

_LOOK_S = 5.0
"""How often what was answered is settled, and the server looked for, in seconds."""
_AWAY_S = 1.0
"""How long a call tries to reach the server while applications are served: they are answered at home meanwhile."""
_PASSING = (TransportError, NodeDraining, TooManyCalls)


class ClientModel:
    """What a client says by itself; the `Model` of a predictor.

    Args:
        task: Its models.
        rule: When the server is asked.
        quantization: How features cross.
    """

    def __init__(self, task: HelpTask, rule: RejectRule, quantization: Quantization) -> None:
        self._task = task
        self._rule = rule
        self._quantization = quantization
        self._chance = task.chance(0)

    def decide(self, inputs: Tensor) -> Decided:
        """See `Model.decide`."""
        logits, features = self._task.map(inputs)
        steps = self._quantization.encode(features)
        judged = self._task.judged(inputs, logits, self._quantization.decode(steps))
        scores = rejector_scores(self._task.scores(judged)).cpu()
        return Decided(logits.cpu(), steps.cpu(), self._rule.decide(scores, self._chance))

    def scores(self, value: Any, first: int, count: int) -> Tensor:
        """See `Model.scores`."""
        return outputs_in(value, first, count, self._task.classes)


class Serving:
    """Predicts for applications until the operator ends the session.

    Args:
        context: The client's place opposite the server.
        server: The server.
        offers: Where applications find it.
        model: What the client says by itself.
        meter: Numbers and charges.
        report: What was predicted before a restart, beside what calibration promised.
    """

    def __init__(
        self,
        context: PeerContext,
        server: Helping,
        offers: Offers,
        model: ClientModel,
        meter: RequestMeter,
        report: ServingReport,
    ) -> None:
        self._context = context
        self._server = server
        self._offers = offers
        self._model = model
        self._meter = meter
        self._settings = context.settings if isinstance(context.settings, Settings) else Settings()
        self._purchase = Purchase(meter)
        self._report = report
        self._reporting = threading.Lock()
        self._due = threading.Event()

    @property
    def counts(self) -> dict[str, int]:
        """What was predicted, see `ServingReport`."""
        with self._reporting:
            return dict(self._report.counts)

    def run(self) -> None:
        """Predicts until the operator ends the session.

        Raises:
            ComityError: The session cannot go on.
        """
        waits, presence = self._context.waits, self._context.presence
        terms, window = helping_terms(self._context.contract), self._settings.window
        with waits.until(SERVING), presence.at_most(_AWAY_S):
            self._settle()
            predictor = Predictor(
                self._model,
                self._server.ask,
                self._purchase,
                within_s=self._settings.within_s,
                is_away=lambda: presence.is_away,
                cap=RateCap(terms.reject_rate, window) if window is not None else None,
                told=self._count,
            )
            predictor.answered = self._look_soon
            try:
                with self._offers.offered(self._offer(predictor)):
                    while not waits.concluded.is_set() and predictor.failure is None:
                        self._due.wait(_LOOK_S)
                        self._due.clear()
                        self._look()
            finally:
                predictor.close()
                self._tell()
            if predictor.failure is not None:
                raise predictor.failure

    def _look(self) -> None:
        interruption.point()
        self._context.waits.require_going_on()
        self._settle()
        with self._reporting:
            is_due = self._report.pending >= self._settings.report_every
        if is_due:
            self._tell()

    def _settle(self) -> None:
        """Signs for what was answered; where the server is away, that is how it is noticed that it is back."""
        began = time.monotonic()
        try:
            self._meter.settle(self._server)
        except _PASSING:
            return
        self._purchase.settled(began)

    def _look_soon(self, unsettled: int) -> None:
        if not unsettled or unsettled >= min(self._meter.metered.credit // 4, MOST_INPUTS):
            self._due.set()

    def _count(self, counts: Counter[str]) -> None:
        with self._reporting:
            self._report.add(counts)
            is_due = self._report.pending >= self._settings.report_every
        if is_due:
            self._due.set()

    def _tell(self) -> None:
        """Tells observers what was predicted since the last time, and keeps the sums."""
        with self._reporting:
            if not self._report.pending:
                return
            fields, counts = self._report.next(), dict(self._report.counts)
        self._context.journal.append("served", 0, **counts)
        self._context.observe(Event("note", 0, fields))

    def _offer(self, predictor: Predictor) -> Offer:
        contract = self._context.contract
        classes = contract.task.heads[0].size
        return Offer(
            name=contract.session,
            inputs=TensorSpec("inputs", contract.task.inputs.dtype, contract.task.inputs.shape),
            outputs=(
                TensorSpec("class", "int64"),
                TensorSpec("probability", "float32", (classes,)),
                TensorSpec("confidence", "float32"),
                TensorSpec("remote", "bool"),
            ),
            predict=partial(self._predict, predictor),
        )

    def _predict(
        self, predictor: Predictor, inputs: Tensor, parameters: Parameters, within_s: float | None
    ) -> Future[Answer]:
        task: HelpTask = self._context.task
        route = _route(parameters.get("route", "auto"))
        asked = predictor.predict(task.prepared(inputs), route=route, within_s=within_s)
        answer: Future[Answer] = Future()

        def take(done: Future[Predicted]) -> None:
            if done.cancelled() or not answer.set_running_or_notify_cancel():
                return
            error = done.exception()
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(_answer(done.result()))

        asked.add_done_callback(take)
        answer.add_done_callback(lambda each: asked.cancel() if each.cancelled() else None)
        return answer


def _route(value: Json) -> Route:
    match value:
        case "auto" | "local" | "remote":
            return value
    raise MalformedMessage("the parameter route", expected="auto, local or remote", received=str(value)[:100])


def _answer(predicted: Predicted) -> Answer:
    confidence, classes = predicted.scores.max(dim=1)
    decisions = ["REMOTE" if remote else "LOCAL" for remote in predicted.remote.tolist()]
    return Answer(
        {"class": classes, "probability": predicted.scores, "confidence": confidence, "remote": predicted.remote},
        # One for each input, in order.
        {
            "decision": ",".join(decisions),
            "answered_by": ",".join("server" if each == "REMOTE" else "client" for each in decisions),
            "confidence": ",".join(f"{each:.6g}" for each in confidence.tolist()),
            "reason": ",".join(predicted.why),
        },
    )
