"""The client: has samples labelled, trains the teacher on them, and its students on all that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from comity import faults
from comity.contract import Json, Release
from comity.errors import InvalidValue
from comity.ledger.ledger import in_round
from comity.protocol.roles import OperatorReply
from comity.protocols.peer_study.annotation.annotation_calls import AnnotationCalls
from comity.protocols.peer_study.annotation.annotation_queue import ANNOTATED, AnnotationQueue
from comity.protocols.peer_study.annotation.masks import encoded
from comity.protocols.peer_study.annotators import Annotators, People, Selected, SimulatedAnnotators
from comity.protocols.peer_study.messages import Average, AverageDetails, Averaging
from comity.protocols.peer_study.report import of_client
from comity.protocols.peer_study.strategies import Question, choose, strategy
from comity.protocols.peer_study.students import Labelled, PeerStudents
from comity.protocols.peer_study.task import TEACHER, StudyTask, study_terms
from comity.protocols.peer_study.uploading.consents import CONSENTED
from comity.protocols.peer_study.uploading.uploads import UPLOADED, Uploads
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.gathering.initiator import GatheringInitiator
from comity.session.outcome import Outcome
from comity.session.waiting import Waits
from comity.tasks.scores import score_of
from comity.tensors import Blob, Layout, State

_NONE = torch.empty(0, dtype=torch.int64)


class Client(GatheringInitiator[AverageDetails]):
    """The asking role; see `GatheringInitiator`.

    Records, beside those: `selected` with the samples that were chosen in a labelling step, `annotated` with what people said
    of some, and `labelled` with what counts of all that were chosen so far; where samples leave, `consented` and `uploaded`.

    Args:
        context: This party's place opposite the server.
        server: The server, in process or over the network.
    """

    def __init__(self, context: PeerContext, server: Averaging) -> None:
        self._terms = study_terms(context.contract)
        self._task: StudyTask = context.task
        self._server = server
        self._strategy = strategy(self._terms.selection)
        self._queue: AnnotationQueue | None = None
        if self._task.is_labelled_by_people:
            self._queue = AnnotationQueue(self._task.question, self._task.own_pool, context.journal)
        self._uploads = self._uploading(context, server)
        self._model: bytes | None = None
        # The students after the last round in which they learned, and the labelling step that it was of.
        self._students: tuple[int, bytes] | None = None
        self._people = self._annotators(context.waits)
        self._selected: dict[int, list[int]] = {}
        self._digests: dict[int, dict[str, str]] = {}
        self._done_steps: set[int] = set()
        self._labels: bytes | None = None
        self._held: float | None = None
        super().__init__(context, server, "update")

    def outcome(self) -> Outcome:
        """The average of the last round, with this client's view of the session."""
        score = score_of(self._context.contract.task.kind).name
        tested = self._task.tested(self._state)
        metrics = of_client(self._rounds, self._terms, score, tested) | self._people.summary()
        metrics["protected_crossed"] = self._crossed()
        if self._uploads is not None:
            metrics |= self._uploads.summary()
        return Outcome((self._blob,), metrics, names=(TEACHER,))

    def operated(self, call: str, fields: Mapping[str, Json]) -> OperatorReply:
        """See `Operable.operated`: people label, and release what was labelled.

        Raises:
            InvalidValue: Nobody has to, or what they say cannot count.
        """
        if call.startswith("consents."):
            if self._uploads is None:
                raise InvalidValue(
                    "no sample leaves in this session",
                    expected='one whose terms say mode = "upload"',
                    received='mode = "federated"',
                    action="nothing need be released",
                )
            return self._uploads.consents.operated(call, fields)
        if self._queue is None:
            raise InvalidValue(
                "nobody labels in this session",
                expected='labels = "people" in [protocols.peer-study] of node.toml, or a pool without labels',
                received="labels of the pool",
                action="say so before the session begins",
            )
        return AnnotationCalls(self._queue, self._guess).operated(call, fields)

    def _annotators(self, waits: Waits) -> Annotators:
        if self._queue is None:
            return SimulatedAnnotators(self._task.own_pool, self._task.oracle())
        return People(self._task.own_pool, self._queue, waits)

    def _uploading(self, context: PeerContext, server: Averaging) -> Uploads | None:
        if not self._terms.uploads:
            return None
        most = self._terms.labels_by(self._terms.step_of(context.contract.rounds))
        is_standing = self._task.settings.consent == "standing"
        return Uploads(context, server, self._task.open_samples, most, is_standing=is_standing)

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

        Where samples leave, those that were released are sent, and the list of them takes the model's place.

        Raises:
            TrainingDiverged: The weights are not finite.
            ReleaseRefused: They would give samples away.
        """
        self._label(round)
        if self._uploads is not None:
            return self._hand_over(round, self._uploads)
        context, units, labels = self._context, in_round(round), self._labelled
        count = len(labels) + self._task.samples
        # People may label fewer than was planned: too few for the node's policy, or for the noise that was agreed on.
        if not count or not context.gate.is_backed(count) or not self._task.batch_size(count):
            return {"submitted": None, "labels": count, "held": None}
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

    def _hand_over(self, round: int, uploads: Uploads) -> dict[str, Json]:
        labels = self._labelled
        ids = self._task.own_pool.ids(labels.indices)
        most = max(self._terms.initial, self._terms.budget)
        waiting = max(1, min(len(ids), most))
        said = dict(zip(ids, labels.labels.tolist(), strict=True))
        blob = uploads.hand_over(round, said, lambda: self._server.await_labels(round, waiting))
        return {
            "submitted": None if blob is None else blob.hex,
            "labels": len(labels) + self._task.samples,
            "held": None,
        }

    def _note(self, fields: Mapping[str, Any]) -> None:
        self._held = fields["held"]

    def _release(self) -> Release:
        if self._uploads is not None:
            return Release(samples=len(self._uploads), kept="round")
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
            self._take_selected(step, fields)
        elif kind == ANNOTATED and self._queue is not None:
            self._queue.replay(fields)
        elif kind == CONSENTED and self._uploads is not None:
            self._uploads.consents.replay(fields)
        elif kind == UPLOADED and self._uploads is not None:
            self._uploads.replay(fields)
        elif kind == "labelled":
            self._done_steps.update(range(step + 1))
            self._labels = bytes.fromhex(fields["labels"])

    def _start(self, round: int) -> State:
        """Where a round's training begins: afresh, or from the last average that this client has."""
        if self._terms.begins_step(round) and self._terms.restart:
            return self._task.initial_state
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def _label(self, round: int) -> None:
        """Chooses samples, and waits until they are labelled, if a labelling step is not done.

        What was chosen in earlier steps that this client missed is asked for again; what was said of it counts.
        """
        step, context = self._terms.step_of(round), self._context
        if step in self._done_steps:
            return
        if step not in self._selected:
            chosen = torch.tensor(self._chosen(step), dtype=torch.int64)
            fields: dict[str, Json] = {"indices": chosen.tolist(), "digests": {**self._people.digests(chosen)}}
            context.journal.append("selected", round, **fields)
            self._take_selected(step, fields)
            context.observe(Event("samples-selected", round, {"step": step, "samples": len(chosen)}))
        labels = before = self._labelled
        open_steps = [each for each in sorted(self._selected) if each not in self._done_steps]
        indices = [index for each in open_steps for index in self._selected[each]]
        digests = {sample: digest for each in open_steps for sample, digest in self._digests[each].items()}
        selected = Selected(step, round, torch.tensor(indices, dtype=torch.int64), digests)
        if len(selected.indices):
            said = self._people.label(selected, lambda: self._server.await_labels(round, len(selected.indices)))
            if len(said.indices):
                labels = before.also(said.indices, said.labels) if len(before) else Labelled(said.indices, said.labels)
        tensors = {"indices": labels.indices, "labels": labels.labels}
        kept = context.blobs.add(Layout.of(tensors).pack(tensors))
        context.journal.append("labelled", round, labels=kept.hex, count=len(labels))
        self._labels = kept.digest
        self._done_steps.update(range(step + 1))
        context.observe(Event("samples-labelled", round, {"step": step, "labels": len(labels)}))

    def _take_selected(self, step: int, fields: Mapping[str, Any]) -> None:
        self._selected[step], self._digests[step] = [*fields["indices"]], {**fields["digests"]}

    def _crossed(self) -> int:
        """How many samples left, as this client's ledger has it, that might not: all of them but those that can be released."""
        entries = self._context.journal.store.entries(self._context.contract.session, self._context.peer.party)
        facts = [each.fact for each in entries]
        left = {each.subject for each in facts if each.kind == "sample" and each.direction == "sent"}
        return len(left) if self._uploads is None else self._uploads.crossed(left)

    def _guess(self, places: Sequence[int]) -> list[tuple[int | str, float]]:
        """What the average that this client has says of samples of the pool: for each a class, or a mask, and how likely it is."""
        task, pool = self._task, self._task.own_pool
        inputs = pool.read(torch.tensor(places, dtype=torch.int64) + len(pool.known))
        scores, labels = task.teacher(self._state)(inputs).softmax(1).max(1)
        if labels.ndim > 1:
            masks = [encoded(each) for each in labels.to(torch.uint8).cpu().numpy()]
            return [*zip(masks, scores.flatten(start_dim=1).mean(dim=1).tolist(), strict=True)]
        return [*zip(labels.tolist(), scores.tolist(), strict=True)]

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
