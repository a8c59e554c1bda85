"""The samples that wait for people to label them, and what these say, which is kept."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from comity.contract import Json
from comity.errors import DataChanged, InvalidValue
from comity.protocols.peer_study.annotation.annotations import Annotation
from comity.protocols.peer_study.annotation.question import Question
from comity.protocols.peer_study.annotation.rules import Settled, agreement, settled
from comity.protocols.peer_study.annotation.views import digest_of
from comity.protocols.peer_study.client_pool import ClientPool
from comity.store.journal import Journal

ANNOTATED = "annotated"
"""Kind of the records that say what people said."""


@dataclass(frozen=True, slots=True)
class AnnotationBatch:
    """What is to be labelled in a step.

    Attributes:
        step: The labelling step.
        round: The round that waits for it.
        places: Where the samples are in the split `pool`, by id, in the order in which they were chosen; first those of
            earlier steps that ended before they were labelled.
        digests: Of each, as it was when it was chosen.
    """

    step: int
    round: int
    places: Mapping[str, int]
    digests: Mapping[str, str] = field(default_factory=dict)


class AnnotationQueue:
    """What is to be labelled, and what was said of it; operators come to it in threads of their own.

    Args:
        question: What people are asked.
        pool: The client's samples.
        journal: Where what they say is kept.

    Attributes:
        question: See above.
        data: The split `pool`.
        lock: Held while several of its answers have to fit each other.
        ready: Set when all that is asked is settled.
    """

    def __init__(self, question: Question, pool: ClientPool, journal: Journal) -> None:
        self.question = question
        self.data = pool.pool
        self.lock = threading.RLock()
        self.ready = threading.Event()
        self._journal = journal
        self._batch: AnnotationBatch | None = None
        # By step, sample and annotator, in the order in which it was said or handed in.
        self._said: dict[int, dict[str, dict[str, Annotation]]] = {}
        # Which state the queue is in: of this queue, since it is made anew when the node is.
        self._name = secrets.token_hex(8)
        self._changes = 0

    def replay(self, fields: Mapping[str, Any]) -> None:
        """Takes what a record keeps."""
        with self.lock:
            self._take(fields["step"], [Annotation(**each) for each in fields["said"]], fields["taken_back"])

    def ask(self, batch: AnnotationBatch) -> None:
        """Has people label samples; what was said of them before a restart counts."""
        with self.lock:
            self._batch = batch
            self._changes += 1
            self._look()

    @property
    def batch(self) -> AnnotationBatch | None:
        """What is to be labelled; None while nothing is."""
        return self._batch

    @property
    def annotators(self) -> int:
        """How many people label each sample."""
        return self.question.annotators

    def left(self) -> int:
        """How many samples are not settled."""
        with self.lock:
            return 0 if self._batch is None else sum(self.settled(each) is None for each in self._batch.places)

    def close(self) -> dict[str, int | str | None]:
        """Ends a step whose samples are settled; returns what counts of each, None where it is left out.

        Raises:
            DataChanged: The samples are not those any more that people were to label.
        """
        with self.lock:
            batch = self.open()
            for sample in batch.places:
                self.require_same(batch, sample)
            found = {each: self.settled(each) for each in batch.places}
            self.leave()
            return {each: counted.label for each, counted in found.items() if counted is not None}

    def leave(self) -> None:
        """Has nobody label any more, until it is asked again; what was said is kept."""
        with self.lock:
            self._batch = None
            self._changes += 1
            self.ready.clear()

    @property
    def version(self) -> list[Json]:
        """This queue, and how often it changed: what tells which of two answers is newer."""
        return [self._name, self._changes]

    @property
    def history(self) -> list[dict[str, Json]]:
        """Who said what of which sample, and when, as far as it was handed in; by step."""
        return [told(*each) for each in self.handed_in()]

    def handed_in(self) -> list[tuple[int, Annotation]]:
        """What was handed in, with the step that it was handed in for."""
        with self.lock:
            return [
                (step, each)
                for step, samples in sorted(self._said.items())
                for said in samples.values()
                for each in said.values()
                if each.is_final
            ]

    @property
    def agreement(self) -> list[dict[str, Json]]:
        """See `rules.agreement`, over all steps."""
        with self.lock:
            return agreement(
                {sample: _final(self.of_sample(sample)) for all_of in self._said.values() for sample in all_of}
            )

    def add(
        self, annotations: Iterable[Annotation], digests: Mapping[str, Any], *, check_only: bool
    ) -> tuple[int, int]:
        """Takes what an annotator says of samples: all of it, or, where something is wrong, nothing.

        Args:
            annotations: What is said, by one annotator.
            digests: Of samples as the annotator saw them, where that is known.
            check_only: Keeps nothing.

        Returns:
            How many annotations are new, and how many were handed in before.

        Raises:
            InvalidValue: One cannot count.
            DataChanged: A sample is not the one any more that was chosen.
        """
        with self.lock:
            batch = self.open()
            new: dict[str, Annotation] = {}
            for one in annotations:
                self.require_asked(batch, one.sample)
                if one.sample in new:
                    raise InvalidValue(
                        f"sample {one.sample} has two labels of {one.annotator}",
                        expected="one",
                        received="two",
                        action="remove one of them",
                    )
                if (wanted := digests.get(one.sample)) and wanted != batch.digests.get(one.sample):
                    raise _changed(one.sample)
                self.require_same(batch, one.sample)
                new[one.sample] = one
            fresh = [one for one in new.values() if not self._is_known(one)]
            if not check_only:
                self._keep(batch, fresh)
            return len(fresh), len(new) - len(fresh)

    def take_back(self, sample: str, annotator: str) -> bool:
        """Drops what an annotator said of a sample and has not handed in; returns whether there was anything.

        Raises:
            InvalidValue: It is handed in, or the sample is not to be labelled.
        """
        with self.lock:
            batch = self.open()
            self.require_asked(batch, sample)
            said = self.of_sample(sample).get(annotator)
            if said is not None and said.is_final:
                raise InvalidValue(
                    f"the label of sample {sample} is handed in",
                    expected="one that is not",
                    received=self._called(said.label),
                    action="leave it: what is handed in is changed no more",
                )
            if said is not None:
                self._keep(batch, [], [[sample, annotator]])
            return said is not None

    def hand_in(self, annotator: str) -> int:
        """Has all count that an annotator said; returns how many annotations that are.

        Raises:
            InvalidValue: Nothing is to be labelled.
        """
        with self.lock:
            batch = self.open()
            mine = [said[annotator] for each in batch.places if annotator in (said := self.of_sample(each))]
            final = [replace(each, is_final=True) for each in mine if not each.is_final]
            fresh = [each for each in final if self.settled(each.sample) is None]
            self._keep(batch, fresh)
            return len(fresh)

    def _is_known(self, one: Annotation) -> bool:
        """Whether it was handed in before.

        Raises:
            InvalidValue: Something else was, or the sample needs no more labels.
        """
        before = self.of_sample(one.sample).get(one.annotator)
        if before is not None and before.is_final:
            if before.says_as(one):
                return True
            raise InvalidValue(
                f"{one.annotator} has handed in a label of sample {one.sample} before",
                expected=f"the same, {self._called(before.label)}",
                received=self._called(one.label),
                action="remove it: what is handed in is changed no more",
            )
        if self.settled(one.sample) is not None:
            raise InvalidValue(
                f"sample {one.sample} needs no more labels",
                expected=f"labels of {self.question.annotators} people",
                received=f"one more, of {one.annotator}",
                action="remove it",
            )
        return False

    def _keep(self, batch: AnnotationBatch, said: list[Annotation], taken_back: Sequence[Sequence[str]] = ()) -> None:
        if not said and not taken_back:
            return
        fields: dict[str, Json] = {
            "step": batch.step,
            "said": [each.content for each in said],
            "taken_back": [[*each] for each in taken_back],
        }
        self._journal.append(ANNOTATED, batch.round, **fields)
        self._take(batch.step, said, taken_back)
        self._look()

    def _take(self, step: int, said: Iterable[Annotation], taken_back: Iterable[Sequence[str]]) -> None:
        kept = self._said.setdefault(step, {})
        self._changes += 1
        for each in said:
            # What is handed in stands where, and in the step in which, it was handed in.
            self._drop(each.sample, each.annotator)
            kept.setdefault(each.sample, {})[each.annotator] = each
        for sample, annotator in taken_back:
            self._drop(sample, annotator)

    def _drop(self, sample: str, annotator: str) -> None:
        for samples in self._said.values():
            samples.get(sample, {}).pop(annotator, None)

    def _look(self) -> None:
        if self._batch is not None and not self.left():
            self.ready.set()

    def of_sample(self, sample: str) -> dict[str, Annotation]:
        """What was said of a sample, in whichever step: it is chosen once, and may be asked for in several."""
        return {name: one for _, all_of in sorted(self._said.items()) for name, one in all_of.get(sample, {}).items()}

    def settled(self, sample: str) -> Settled | None:
        """What counts of a sample; None while more people have to say something."""
        return settled(_final(self.of_sample(sample)), self.question.annotators, self.question.rule)

    def _called(self, label: int | str | None) -> str:
        if isinstance(label, str):
            return "a mask"
        return "skipped" if label is None else self.question.classes[label]

    def open(self) -> AnnotationBatch:
        """What is to be labelled.

        Raises:
            InvalidValue: Nothing is.
        """
        if self._batch is None:
            raise InvalidValue(
                "nothing is to be labelled now",
                expected="a session that waits for labels",
                received=f"session {self.question.session}, which does not",
                action="wait until comity show says that it does",
            )
        return self._batch

    def require_asked(self, batch: AnnotationBatch, sample: str) -> None:
        """Refuses a sample that is not to be labelled.

        Raises:
            InvalidValue: It is not.
        """
        if sample not in batch.places:
            earlier = any(sample in of for step, of in self._said.items() if step != batch.step)
            raise InvalidValue(
                f"sample {sample[:100]} is not to be labelled",
                expected=f"one of the {len(batch.places)} of step {batch.step}",
                received="one of an earlier step" if earlier else "one that was never exported",
                action="export the samples anew, and label those",
            )

    def require_same(self, batch: AnnotationBatch, sample: str) -> None:
        """Refuses a sample that is not what it was when it was chosen.

        Raises:
            DataChanged: It is not.
        """
        known = batch.digests.get(sample)
        if known and known != digest_of(self.data, batch.places[sample]):
            raise _changed(sample)


def told(step: int, said: Annotation) -> dict[str, Json]:
    """An annotation that was handed in, with its step, as a JSON object."""
    return {"step": step, **{name: value for name, value in said.content.items() if name != "is_final"}}


def _final(said: Mapping[str, Annotation]) -> list[Annotation]:
    return [each for each in said.values() if each.is_final]


def _changed(sample: str) -> DataChanged:
    return DataChanged(
        f"sample {sample} is not the one that was chosen",
        expected="the pool as it was at the selection",
        received="another content of the same id",
        action="bring the pool back as it was, or export the samples anew",
    )
