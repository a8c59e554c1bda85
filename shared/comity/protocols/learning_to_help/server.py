"""The server: trains its classifier and a rejector for a client's model, then answers what the client asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from comity import faults
from comity.blobs.session_blobs import Expectation
from comity.contract import Json
from comity.errors import ComityError, ConflictingOffer, InvalidValue, MalformedMessage, RoundOutOfOrder, UnknownBlob
from comity.ledger.ledger import WHOLE
from comity.ledger.receipts import SignedStatement
from comity.protocols.learning_to_help.copies import Copies
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.messages import MOST_INPUTS, Outputs, metered
from comity.protocols.learning_to_help.task import LOCAL, REJECTOR, SERVER, HelpTask, helping_terms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.metering.answers import AnswerMeter
from comity.session.metering.tally import Tally, Wire
from comity.session.request_queue import Queued, RequestQueue
from comity.tensors import Layout, State

_MOST_WAITING = 1024
_TAKEN = 64
"""Questions that are answered by one pass of the classifier: all that wait, up to so many."""


class Server:
    """The helping role; single-threaded. Its state follows from its journal.

    Records: `asked` with the client's model, `learned` with the classifier and the rejector, if it is the server's to train,
    and those of `Copies` and `AnswerMeter`.

    Args:
        session: Its session context.
        context: Its context opposite the client.
    """

    def __init__(self, session: SessionContext, context: PeerContext) -> None:
        terms = helping_terms(session.contract)
        self._session = session
        self._context = context
        self._task: HelpTask = session.task
        self._meter = AnswerMeter(context, metered(terms.requests))
        self._queue = RequestQueue(_MOST_WAITING)
        self._asked: tuple[bytes, Quantization] | None = None
        self._training = terms.training
        self._copies = Copies(session, context)
        self._rejector: bytes | None = None
        self._is_trained = False
        self._waiting: list[Future[bytes | None]] = []
        self._failure: ComityError | None = None
        for record in session.journal.records():
            self._replay(record.kind, record.fields)
        layout = self._task.layouts[LOCAL]
        context.blobs.expect(Expectation("local_model", WHOLE, layout.size, 1, layout.verify))

    def learn(self, local: bytes, minimum: float, maximum: float) -> Future[bytes | None]:
        """See `Helping.learn`."""
        if self._failure is not None:
            raise self._failure
        try:
            quantization = Quantization(minimum, maximum)
        except InvalidValue as error:
            raise MalformedMessage(
                error.what, expected=error.expected, received=error.received, action="send the range of the features"
            ) from error
        if self._asked is None:
            if local not in self._context.blobs:
                raise UnknownBlob(
                    "the client's model is not here", expected=local.hex(), received="nothing", action="send it first"
                )
            fields: dict[str, Json] = {"local": local.hex(), "minimum": minimum, "maximum": maximum}
            self._session.journal.append("asked", 0, **fields)
            self._replay("asked", fields)
        elif (local, quantization) != self._asked:
            raise ConflictingOffer(
                "another model was given before",
                expected=self._asked[0].hex(),
                received=local.hex(),
                action="a session is about one model of the client's, which is fixed",
            )
        answer: Future[bytes | None] = Future()
        if self._is_trained or self._training == "client":
            answer.set_result(self._rejector)
        else:
            # Of those who have gone nothing is left.
            self._waiting = [each for each in self._waiting if not each.cancelled()]
            self._waiting.append(answer)
        return answer

    def copy(self, index: int) -> Future[bytes]:
        """See `Helping.copy`."""
        if self._failure is not None:
            raise self._failure
        if self._asked is None or self._training != "client":
            raise RoundOutOfOrder(
                "there are no copies of the classifier",
                expected="session.terms.training client, and Learn first",
                received="a copy that is asked for",
            )
        return self._copies.ask(index)

    def acknowledge(self, copy: int) -> None:
        """See `Helping.acknowledge`."""
        if copy:
            self._copies.acknowledge(copy)

    def ask(self, wire: Wire, first: int, count: int, features: bytes, within_ms: int) -> Future[Outputs]:
        """See `Helping.ask`."""
        if self._failure is not None:
            raise self._failure
        if not self._is_trained:
            raise RoundOutOfOrder(
                "the server has not been trained", expected="Learn first", received="a question", action="ask for it"
            )
        size = count * self._task.feature_size
        if not 1 <= count <= MOST_INPUTS or len(features) != size:
            raise MalformedMessage(
                "the features are not those of the contract's model",
                expected=f"1 to {MOST_INPUTS} inputs of {self._task.feature_size} bytes each",
                received=f"{count} inputs in {len(features)} bytes",
                action="send the 8-bit features of the layer that session.terms.features names",
            )
        self._meter.require_open(first, count)
        return self._queue.put((wire, first, count, features), wire.ends(within_ms / 1000))

    def tally(self) -> Tally:
        """See `Helping.tally`."""
        return self._meter.tally()

    def settle(self, request: SignedStatement) -> SignedStatement:
        """See `Helping.settle`."""
        before = self._context.receipt_book.made("receipt", request.statement.units)
        receipt = self._meter.settle(request)
        if before is None:
            settled = {"answered": self._meter.answered}
            self._session.observe(Event("requests-settled", 0, settled))
        return receipt

    def advance(self) -> bool:
        """Trains if a client waits for that, else answers what waits in one pass."""
        if self._asked is not None and not self._is_trained and (self._waiting or self._training == "client"):
            self._train(*self._asked)
            return True
        waited = self._queue.take(_TAKEN)
        # What was asked in the meantime is answered beside it.
        taken = self._meter.open(waited, lambda each: (each.request[1], each.request[2]))
        if taken:
            self._answer(taken)
        return bool(waited)

    def fail(self, error: ComityError) -> None:
        """See `Steppable.fail`."""
        self._failure = error
        self._queue.fail(error)
        self._copies.fail(error)
        for each in self._waiting:
            if each.set_running_or_notify_cancel():
                each.set_exception(error)
        self._waiting.clear()

    def _replay(self, kind: str, fields: Mapping[str, Any]) -> None:
        match kind:
            case "asked":
                quantization = Quantization(fields["minimum"], fields["maximum"])
                self._asked = bytes.fromhex(fields["local"]), quantization
            case "learned":
                self._is_trained = True
                self._task.load(SERVER, Layout.unpack(self._context.blobs.get(bytes.fromhex(fields["server"]))))
                if fields["rejector"] is not None:
                    self._rejector = bytes.fromhex(fields["rejector"])
                    self._context.blobs.publish(self._rejector, "checkpoint", WHOLE)
            case "copied":
                self._copies.replay(fields)
                if self._copies.is_done:
                    self._task.load(SERVER, self._copies.classifier())
                    self._is_trained = True

    def _train(self, local: bytes, quantization: Quantization) -> None:
        """Trains e, the next part of it where copies leave; and r where that is the server's to train. Durable before it leaves."""
        state = Layout.unpack(self._context.blobs.get(local))
        match self._training:
            case "server":
                self._train_both(state, quantization)
            case "predictions":
                server = self._task.server_training(state, quantization).finish().state_dict()
                faults.point("training")
                self._learned(self._context.blobs.add(self._task.layouts[SERVER].pack(server)).digest, None, None)
            case "client":
                self._copies.advance(state, quantization)
                if self._copies.is_done:
                    self._task.load(SERVER, self._copies.classifier())
                    self._is_trained = True

    def _train_both(self, local: State, quantization: Quantization) -> None:
        learned = self._task.learn(local, quantization)
        if learned.verdict is not None and self._session.verdicts is not None:
            if learned.verdict.is_refused:
                self._session.verdicts.refuse("checkpoint", WHOLE, "rejector", learned.verdict)
            learned.verdict.require()
        faults.point("training")
        blobs = self._context.blobs
        server = blobs.add(self._task.layouts[SERVER].pack(learned.server))
        rejector = blobs.release(self._task.layouts[REJECTOR].pack(learned.rejector), "checkpoint", WHOLE)
        if learned.verdict is not None and self._session.verdicts is not None:
            self._session.verdicts.record("checkpoint", WHOLE, rejector.digest, learned.verdict)
        held = None if learned.verdict is None else learned.verdict.held_rows
        self._learned(server.digest, rejector.digest, held)

    def _learned(self, server: bytes, rejector: bytes | None, held: Json) -> None:
        """Keeps what was trained, and tells who waits for it."""
        fields: dict[str, Json] = {
            "server": server.hex(),
            "rejector": None if rejector is None else rejector.hex(),
            "rows_held": held,
        }
        self._session.journal.append("learned", 0, **fields)
        self._replay("learned", fields)
        self._session.observe(Event("classifier-trained", 0, {"rows_held": held}))
        for each in self._waiting:
            if each.set_running_or_notify_cancel():
                each.set_result(rejector)
        self._waiting.clear()

    def _answer(self, taken: Sequence[Queued]) -> None:
        """Answers questions by one pass; none of the answers leaves before it is durable which numbers they are for."""
        questions: list[tuple[Queued, Wire, int, int]] = []
        parts = []
        for queued in taken:
            wire, first, count, features = queued.request
            questions.append((queued, wire, first, count))
            steps = torch.frombuffer(bytearray(features), dtype=torch.uint8)
            parts.append(steps.view(count, *self._task.feature_shape))
        outputs = self._task.answers(Quantization.decode(torch.cat(parts)))
        answers: list[Outputs] = []
        sizes: list[tuple[int, int, int]] = []
        at = 0
        for _, wire, first, count in questions:
            answer: Outputs = (first, count, outputs[at : at + count].flatten().tolist())
            at += count
            answers.append(answer)
            # The whole question is on its first number's account.
            sizes.append((first, wire.asked, wire.size(answer)))
            sizes += [(number, 0, 0) for number in range(first + 1, first + count)]
        self._meter.answer(sizes)
        for (queued, *_), answer in zip(questions, answers, strict=True):
            queued.answer.set_result(answer)
