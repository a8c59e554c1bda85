"""The client: has samples labelled, trains the teacher on them, and its students on all that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from comity import faults
from comity.contract import Json, Release
from comity.ledger.ledger import in_round
from comity.protocols.peer_study.annotators import Annotators, SimulatedAnnotators
from comity.protocols.peer_study.messages import Average, AverageDetails, Averaging
from comity.protocols.peer_study.report import of_client
from comity.protocols.peer_study.strategies import Question, choose, strategy
from comity.protocols.peer_study.students import Labelled, PeerStudents
from comity.protocols.peer_study.task import TEACHER, StudyTask, study_terms
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.gathering.initiator import GatheringInitiator
from comity.session.outcome import Outcome
from comity.tasks.scores import score_of
from comity.tensors import Blob, Layout, State

_NONE = torch.empty(0, dtype=torch.int64)


class Client(GatheringInitiator[AverageDetails]):
    """The asking role; see `GatheringInitiator`.

    Records, beside those: `selected` with the samples that were chosen in a labelling step, and `labelled` with what was said
    of all that were chosen so far.

    Args:
        context: This party's place opposite the server.
        server: The server, in process or over the network.
    """

    def __init__(self, context: PeerContext, server: Averaging) -> None:
        self._terms = study_terms(context.contract)
        self._task: StudyTask = context.task
        self._server = server
        self._strategy = strategy(self._terms.selection)
        self._annotators: Annotators | None = None
        self._model: bytes | None = None
        # The students after the last round in which they learned, and the labelling step that it was of.
        self._students: tuple[int, bytes] | None = None
        self._selected: dict[int, list[int]] = {}
        self._done_steps: set[int] = set()
        self._labels: bytes | None = None
        self._held: float | None = None
        super().__init__(context, server, "update")

    def outcome(self) -> Outcome:
        """The average of the last round, with this client's view of the session."""
        score = score_of(self._context.contract.task.kind).name
        tested = self._task.tested(self._state)
        metrics = of_client(self._rounds, self._terms, score, tested)
        return Outcome((self._blob,), metrics, names=(TEACHER,))

    @property
    def _blob(self) -> Blob:
        """The teacher as this client has it."""
        if self._model is None:
            return self._task.layout.pack(self._task.initial_state)
        return self._context.blobs.get(self._model)

    @property
    def _state(self) -> State:
        return self._task.layout.view(self._blob.data)

    @property
    def _labelled(self) -> Labelled:
        """What was labelled in the session."""
        if self._labels is None:
            return Labelled(_NONE, _NONE)
        kept = Layout.unpack(self._context.blobs.get(self._labels))
        return Labelled(kept["indices"], kept["labels"])

    def _make(self, round: int) -> dict[str, Json]:
        """Has labelled what is to be, trains the teacher, and makes durable what is sent of it.

        Raises:
            TrainingDiverged: The weights are not finite.
            ReleaseRefused: They would give samples away.
        """
        self._label(round)
        context, units, labels = self._context, in_round(round), self._labelled
        count = len(labels) + self._task.samples
        if not count:
            return {"submitted": None, "labels": 0, "held": None}
        start = self._start(round)
        faults.point("training")
        state, guard = self._task.train(start, labels, round)
        verdict = None
        if guard is not None:
            released = guard.release_model(state, start)
            state, verdict = dict(released.state), released.verdict
            if verdict.is_refused and context.place.verdicts is not None:
                context.place.verdicts.refuse("update", units, f"round {round}", verdict)
            verdict.require()
        blob = context.blobs.release(self._task.layout.pack(state), "update", units)
        if verdict is not None and context.place.verdicts is not None:
            context.place.verdicts.record("update", units, blob.digest, verdict)
        held = verdict.held_rows / verdict.rows if verdict is not None and verdict.rows else None
        return {"submitted": blob.hex, "labels": count, "held": held}

    def _note(self, fields: Mapping[str, Any]) -> None:
        self._held = fields["held"]

    def _release(self) -> Release:
        return Release(samples=len(self._labelled) + self._task.samples, kept="round")

    def _collected(self, answer: Average, blob: Blob) -> dict[str, Json]:
        """Takes the average, and has the students learn from it, as long as they have something to choose."""
        details = answer.details
        faults.point("evaluation")
        self._context.blobs.add(blob)
        self._model = details.model
        step = self._terms.step_of(details.round)
        students = None
        if self._strategy.uses_students and self._terms.step_of(self._context.contract.rounds) > step:
            students = self._taught(details.round, self._peers(step))
        faults.point("selection")
        tested: dict[str, Json] = {f"test_{name}": value for name, value in self._task.tested(self._state).items()}
        return {
            "participants": details.participants,
            "labels": len(self._labelled) + self._task.samples,
            "rows_held": self._held,
            **tested,
            "model": details.model.hex(),
            "students": students,
        }

    def _finished(self, fields: Mapping[str, Any]) -> None:
        self._model = bytes.fromhex(fields["model"])
        if fields["students"] is not None:
            self._students = self._terms.step_of(self._done), bytes.fromhex(fields["students"])

    def _kept(self) -> set[bytes]:
        students = None if self._students is None else self._students[1]
        return {each for each in (self._model, self._labels, students) if each is not None}

    def _replay(self, kind: str, round: int, fields: Mapping[str, Any]) -> None:
        step = self._terms.step_of(round)
        if kind == "selected":
            self._selected[step] = fields["indices"]
        elif kind == "labelled":
            self._done_steps.add(step)
            self._labels = bytes.fromhex(fields["labels"])

    def _start(self, round: int) -> State:
        """Where a round's training begins: afresh, or from the last average that this client has."""
        if self._terms.begins_step(round) and self._terms.restart:
            return self._task.initial_state
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def _label(self, round: int) -> None:
        """Chooses samples, and waits until they are labelled, if a labelling step is not done."""
        step, context = self._terms.step_of(round), self._context
        if step in self._done_steps:
            return
        if step not in self._selected:
            chosen = self._chosen(step)
            context.journal.append("selected", round, indices=[*chosen])
            self._selected[step] = chosen
            context.observe(Event("samples-selected", round, {"step": step, "samples": len(chosen)}))
        before, indices = self._labelled, torch.tensor(self._selected[step], dtype=torch.int64)
        labels = before
        if len(indices):
            self._server.await_labels(round, len(indices))
            said = self._people.label(step, indices)
            labels = before.also(said.indices, said.labels) if len(before) else Labelled(said.indices, said.labels)
        tensors = {"indices": labels.indices, "labels": labels.labels}
        kept = context.blobs.add(Layout.of(tensors).pack(tensors))
        context.journal.append("labelled", round, labels=kept.hex, count=len(labels))
        self._labels = kept.digest
        self._done_steps.add(step)
        context.observe(Event("samples-labelled", round, {"step": step, "labels": len(labels)}))

    @property
    def _people(self) -> Annotators:
        if self._annotators is None:
            self._annotators = SimulatedAnnotators(self._task)
        return self._annotators

    def _chosen(self, step: int) -> list[int]:
        """What is to be labelled in a step: at first by chance, then as the terms say."""
        task, terms, pool = self._task, self._terms, self._task.pool
        if pool is None:
            return []
        asked = torch.tensor([each for some in self._selected.values() for each in some], dtype=torch.int64)
        candidates, labels = pool.free(asked), self._labelled
        name = terms.selection if step and (len(labels) or task.samples) else "random"
        how = strategy(name)
        question = Question(
            pool,
            candidates=candidates,
            labelled=labels,
            budget=min(terms.asked_in(step), len(candidates)),
            classes=task.classes,
            task_model=task.model,
            students=self._peers(step - 1, taught=True) if how.uses_students else None,
            seed=task.seed("selection", step),
        )
        chosen: list[int] = choose(how, question).tolist()
        return chosen

    def _peers(self, step: int, *, taught: bool = False) -> PeerStudents:
        """The students in a labelling step: where they got to, or as they begin.

        Args:
            step: The step.
            taught: Whether those that have learned nothing in it, since this client missed its rounds, learn now.
        """
        known = self._students
        is_known = known is not None and (known[0] == step or not self._terms.restart)
        students = self._task.students(step if self._terms.restart else 0)
        if known is not None and is_known:
            students.restore(Layout.unpack(self._context.blobs.get(known[1])))
        elif taught:
            self._task.fit(students, self._state, self._labelled, self._done + 1)
        return students

    def _taught(self, round: int, students: PeerStudents) -> str:
        """Has students learn from the average of a round; returns the digest of what is kept of them, hexadecimal."""
        self._task.fit(students, self._state, self._labelled, round)
        state: dict[str, Tensor] = students.state()
        return self._context.blobs.add(Layout.of(state).pack(state)).hex
