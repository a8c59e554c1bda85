"""A classifier that is trained in parts, after each of which a copy of it is there for the client."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from torch import Tensor

from comity import faults
from comity.contract import Json
from comity.errors import ComityError, RoundOutOfOrder
from comity.ledger.ledger import Units
from comity.privacy.leak_guard import LeakGuard
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.messages import copies_of
from comity.protocols.learning_to_help.task import SERVER, HelpTask, helping_terms
from comity.protocols.learning_to_help.training import Training, model_in
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.tensors import Layout, State

_GUARD = "guard."


class Copies:
    """Trains, and publishes copies. Records: `copied`, with a copy as it is sent, and what the training goes on from.

    Args:
        session: The server's session context.
        context: Its context opposite the client.
    """

    def __init__(self, session: SessionContext, context: PeerContext) -> None:
        self._session = session
        self._context = context
        self._task: HelpTask = session.task
        self._terms = helping_terms(session.contract)
        self.count = copies_of(session.own.samples, self._terms)
        self._made: dict[int, bytes] = {}
        self._kept: bytes | None = None
        self._training: Training | None = None
        self._guard: LeakGuard | None = None
        self._sent: State = {}
        self._waiting: list[tuple[int, Future[bytes]]] = []

    @property
    def is_done(self) -> bool:
        """Whether the last is there."""
        return self.count in self._made

    def replay(self, fields: Mapping[str, Any]) -> None:
        """Takes a record."""
        index, digest = int(fields["index"]), bytes.fromhex(fields["copy"])
        self._made[index] = digest
        self._kept = bytes.fromhex(fields["kept"])
        if digest in self._context.blobs:
            self._context.blobs.publish(digest, "checkpoint", _units(index))

    def classifier(self) -> State:
        """e, as it is when all copies are made."""
        return model_in(self._read(self._kept or b""))

    def ask(self, index: int) -> Future[bytes]:
        """See `Helping.copy`."""
        if not 1 <= index <= self.count:
            raise RoundOutOfOrder(
                "there is no such copy of the classifier", expected=f"1 to {self.count}", received=index
            )
        answer: Future[bytes] = Future()
        # Of those who have gone nothing is left.
        self._waiting = [(asked, each) for asked, each in self._waiting if not each.cancelled()]
        self._waiting.append((index, answer))
        self._answer()
        return answer

    def acknowledge(self, index: int) -> None:
        """Drops the copies before one that the client has."""
        for number, digest in self._made.items():
            if number < index and digest != self._made.get(index):
                self._context.blobs.drop(digest)

    def advance(self, local: State, quantization: Quantization) -> bool:
        """Makes the next copy, if there is one to make."""
        if self.is_done:
            return False
        index = len(self._made) + 1
        training = self._begun(local, quantization)
        training.advance(index * self._terms.copy_every)
        faults.point("training")
        self._keep(index, training)
        self._answer()
        return True

    def fail(self, error: ComityError) -> None:
        """Ends what waits."""
        for _, answer in self._waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
        self._waiting.clear()

    def _begun(self, local: State, quantization: Quantization) -> Training:
        if self._training is None:
            training = self._task.server_training(local, quantization)
            kept: dict[str, Tensor] = {} if self._kept is None else dict(self._read(self._kept))
            guarded = {name.removeprefix(_GUARD): each for name, each in kept.items() if name.startswith(_GUARD)}
            self._guard = self._task.guard_of(training, guarded or None)
            self._sent = {name: each.detach().clone() for name, each in training.model.state_dict().items()}
            if self._kept is not None:
                training.restore(len(self._made) * self._terms.copy_every, kept)
                if self._guard is not None:
                    self._sent = self._read(self._made[len(self._made)])
            self._training = training
        return self._training

    def _keep(self, index: int, training: Training) -> None:
        """Makes a copy durable, as it may leave, with what the training goes on from."""
        verdicts, blobs, units = self._session.verdicts, self._context.blobs, _units(index)
        state: State = {name: each.detach().cpu().clone() for name, each in training.model.state_dict().items()}
        kept = training.kept()
        verdict = None
        if self._guard is not None:
            released = self._guard.release_model(state, self._sent)
            verdict, state = released.verdict, released.state
            if verdict.is_refused and verdicts is not None:
                verdicts.refuse("checkpoint", units, "classifier", verdict)
            verdict.require()
            self._sent = state
            kept |= {f"{_GUARD}{name}": each for name, each in self._guard.kept().items()}
        before, before_sent = self._kept, self._made.get(index - 1)
        copy = blobs.release(self._task.layouts[SERVER].pack(state), "checkpoint", units).digest
        if verdict is not None and verdicts is not None:
            verdicts.record("checkpoint", units, copy, verdict)
        fields: dict[str, Json] = {
            "index": index,
            "copy": copy.hex(),
            "kept": blobs.add(Layout.of(kept).pack(kept)).hex,
        }
        self._session.journal.append("copied", 0, **fields)
        self.replay(fields)
        if before is not None and before not in (self._kept, before_sent):
            blobs.drop(before)
        held = None if verdict is None else verdict.held_rows
        self._session.observe(Event("classifier-copied", 0, {"copy": index, "rows_held": held}))

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for index, answer in waiting:
            if index not in self._made:
                self._waiting.append((index, answer))
            elif answer.set_running_or_notify_cancel():
                answer.set_result(self._made[index])

    def _read(self, digest: bytes) -> State:
        return Layout.unpack(self._context.blobs.get(digest))


def _units(index: int) -> Units:
    return Units("copy", index, 1)
