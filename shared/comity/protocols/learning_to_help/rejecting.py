"""A client that trains its rejector itself: by copies of the server's classifier, or by what that says of its samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comity import faults, interruption
from comity.contract import Json
from comity.errors import DeadlineExceeded, MalformedMessage, NodeDraining, TransportError
from comity.ledger.ledger import Fact, Units
from comity.protocols.learning_to_help.messages import MOST_COPIES, Helping, copies_of
from comity.protocols.learning_to_help.questions import Questions
from comity.protocols.learning_to_help.task import REJECTOR, HelpTask, helping_terms
from comity.protocols.learning_to_help.training import OwnRejector, model_in
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.tensors import Layout, State

_AWAY_S = 1.0
"""How long a call tries to reach the server, where the training can go on without it."""
_AWAY = (TransportError, DeadlineExceeded, NodeDraining)


@dataclass(frozen=True)
class Stepped:
    """Steps of the rejector's training that are done, and durable.

    Attributes:
        first: The first of them, from 1.
        last: The last.
        copy: Which copy of the classifier they went by; 0 for what the server said of the samples.
        digest: Digest of that copy; empty for none.
        kept: Digest of what the training goes on from.
    """

    first: int
    last: int
    copy: int
    digest: bytes
    kept: bytes

    def fields(self) -> dict[str, Json]:
        """As a record."""
        return {
            "first": self.first,
            "last": self.last,
            "copy": self.copy,
            "digest": self.digest.hex(),
            "kept": self.kept.hex(),
        }

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Stepped:
        """What a record says."""
        digests = (bytes.fromhex(fields[name]) for name in ("digest", "kept"))
        return cls(fields["first"], fields["last"], fields["copy"], *digests)


class OwnTraining:
    """Trains the rejector at the client.

    With copies, the steps fall into as many parts as there are copies. A part goes by the copy of its number where the
    server can be reached, and else by the last one that is here: which it was is kept with the steps, and after a restart
    they are not made again. Records: `predicted`, with what the server said of the samples; `stepped`, see `Stepped`.

    Args:
        context: The client's place opposite the server.
        server: The server.
        questions: Asks it.
    """

    def __init__(self, context: PeerContext, server: Helping, questions: Questions) -> None:
        self._context = context
        self._server = server
        self._questions = questions
        self._task: HelpTask = context.task
        self._terms = helping_terms(context.contract)
        self._predicted: list[int] | None = None
        self.steps: list[Stepped] = []

    @property
    def asked(self) -> int:
        """How many inputs the server was asked about."""
        return sum(each >= 0 for each in self._predicted or ())

    def replay(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Takes a record of the journal."""
        if kind == "predicted":
            self._predicted = list(fields["classes"])
        elif kind == "stepped":
            self.steps.append(Stepped.of(fields))

    def work(self, own: OwnRejector) -> Iterator[None]:
        """Trains to the end.

        Args:
            own: The training.
        """
        if self.steps:
            done = self.steps[-1]
            own.training.restore(done.last, self._read(done.kept))
        if self._terms.training == "predictions":
            yield from self._by_predictions(own)
        else:
            yield from self._by_copies(own)

    def _by_predictions(self, own: OwnRejector) -> Iterator[None]:
        if self._predicted is None:
            fields: dict[str, Json] = {"classes": self._questions.ask(1, own.steps).tolist()}
            self._context.journal.append("predicted", 0, **fields)
            self.replay("predicted", fields)
            yield
        if not self.steps:
            # Of what was beyond the bought requests nothing is known: as if the server were wrong there.
            own.answered(own.labels.new_tensor(self._predicted))
            self._train(own, own.training.steps, 0, b"")
            yield

    def _by_copies(self, own: OwnRejector) -> Iterator[None]:
        parts, steps = self._parts(), own.training.steps
        seen_by = 0
        while own.training.step < steps:
            interruption.point()
            # The part of the next step; of more copies than steps some are passed over.
            part = -(-(own.training.step + 1) * parts // steps)
            until = part * steps // parts
            copy, digest = self._newest(part)
            if copy != seen_by:
                own.answered(self._task.classes_by(self._read(digest), own.seen))
                seen_by = copy
            self._train(own, until, copy, digest)
            yield
        # What is asked from now on is answered by the last.
        self._server.copy(parts).result()
        self._server.acknowledge(parts)

    def _parts(self) -> int:
        """How many copies there are, by the samples that the server says it has.

        Raises:
            MalformedMessage: More than can be asked for.
        """
        samples = self._context.peer.samples
        parts = copies_of(samples, self._terms)
        if parts > MOST_COPIES:
            raise MalformedMessage(
                "the server's samples make more copies of its classifier than can be asked for",
                expected=f"at most {MOST_COPIES} copies",
                received=f"{parts}, of {samples} samples",
                action="agree on a greater session.terms.copy_every, or ask the server how many samples it has",
            )
        return parts

    def _newest(self, part: int) -> tuple[int, bytes]:
        """The copy of a part, or, where the server does not answer, the last that is here."""
        if not self.steps:
            return part, self._copy(part)
        try:
            with self._context.presence.at_most(_AWAY_S):
                return part, self._copy(part)
        except _AWAY:
            last = self.steps[-1]
            return last.copy, last.digest

    def _copy(self, index: int) -> bytes:
        digest = self._server.copy(index).result()
        self._server.acknowledge(index)
        return digest

    def _train(self, own: OwnRejector, until: int, copy: int, digest: bytes) -> None:
        first = own.training.step + 1
        own.training.advance(until)
        faults.point("training")
        state = own.training.kept()
        kept = self._context.blobs.add(Layout.of(state).pack(state)).digest
        done = Stepped(first, until, copy, digest, kept)
        with self._context.journal.transaction():
            self._context.journal.append("stepped", 0, **done.fields())
            if digest:
                self._context.journal.store.record(self._used(done))
        for each in self.steps[-1:]:
            for old, new in ((each.kept, kept), (each.digest, digest)):
                if old and old != new:
                    self._context.blobs.drop(old)
        self.steps.append(done)
        self._context.observe(Event("rejector-stepped", 0, {"first": first, "last": until, "copy": copy}))

    def _used(self, done: Stepped) -> Fact:
        """What the ledger says of some steps: which copy of the server's classifier they went by."""
        steps = Units("step", done.first, done.last - done.first + 1)
        session, peer = self._context.contract.session, self._context.peer.party
        return Fact(
            "used", session, steps, peer, kind="checkpoint", subject=done.digest.hex(), body={"copy": done.copy}
        )

    def rejector(self) -> bytes:
        """Keeps the rejector as a model of its own; its digest."""
        state = model_in(self._read(self.steps[-1].kept))
        return self._context.blobs.add(self._task.layouts[REJECTOR].pack(state)).digest

    def _read(self, digest: bytes) -> State:
        return Layout.unpack(self._context.blobs.get(digest))
