"""What an operator's programs ask of the samples that wait for labels: the page, and `comity annotate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from comity.contract import Json
from comity.errors import InvalidValue
from comity.protocol.roles import OperatorReply
from comity.protocols.peer_study.annotation.annotation_queue import AnnotationQueue, told
from comity.protocols.peer_study.annotation.annotations import annotation_of, annotator_named
from comity.protocols.peer_study.annotation.views import columns_of, kind_of, view
from comity.protocols.peer_study.pages import PAGE_BYTES, begin_of, page

_MOST_AT_ONCE = 100_000
_GUESSES_AT_ONCE = 100
"""For how many samples the teacher is run in one go."""


class AnnotationCalls:
    """Answers an operator's calls whose names begin with `labels.`.

    Args:
        queue: The samples that wait.
        guess: What the teacher says of samples of the pool, by their places there: a class, or a mask, and how likely it is.
    """

    def __init__(self, queue: AnnotationQueue, guess: Callable[[Sequence[int]], list[tuple[int | str, float]]]) -> None:
        self._queue = queue
        self._guess = guess

    def operated(self, call: str, fields: Mapping[str, Any]) -> OperatorReply:
        """See `Operable.operated`.

        Raises:
            InvalidValue: There is no such call, nothing is to be labelled, or what was said cannot count.
            DataChanged: The sample is not the one any more that was chosen.
        """
        if call == "labels.sample":
            return self._sample(str(fields.get("sample", "")))
        answers: dict[str, Callable[[], Mapping[str, Json]]] = {
            "labels.show": lambda: self._shown(fields.get("known")),
            "labels.samples": lambda: self._samples(begin_of(fields)),
            "labels.history": lambda: self._said_before(begin_of(fields)),
            "labels.guesses": lambda: self._guesses(begin_of(fields)),
            "labels.say": lambda: self._say(fields),
            "labels.take_back": lambda: self._take_back(fields),
            "labels.hand_in": lambda: self._hand_in(annotator_named(fields.get("annotator"))),
        }
        if call in answers:
            return OperatorReply(answers[call]())
        raise InvalidValue(
            "there is no such call",
            expected="labels.show, samples, history, sample, guesses, say, take_back or hand_in",
            received=call[:100],
            action="run the comity annotate of the node's version",
        )

    def _shown(self, known: Any) -> dict[str, Json]:
        """What is asked, without the samples; its version alone where somebody knows that one."""
        question = self._queue.question
        with self._queue.lock:
            batch = self._queue.batch
            if known == self._queue.version:
                return {"version": self._queue.version}
            return {
                "version": self._queue.version,
                "session": question.session,
                "step": None if batch is None else batch.step,
                "round": None if batch is None else batch.round,
                "classes": [*question.classes],
                "mask_size": None if question.mask_size is None else [*question.mask_size],
                "guidelines": question.guidelines,
                "annotators": question.annotators,
                "rule": question.rule,
                "kind": kind_of(self._queue.data),
                "columns": [*columns_of(self._queue.data)] if kind_of(self._queue.data) == "table" else [],
                "left": self._queue.left(),
                "agreement": [*self._queue.agreement],
            }

    def _samples(self, begin: int) -> dict[str, Json]:
        """A page of what is asked, and what was said of it."""
        with self._queue.lock:
            batch = self._queue.batch
            if batch is None:
                return {"step": None, "samples": [], "next": None}

            def shown(sample: str) -> dict[str, Json]:
                return {
                    "sample": sample,
                    "digest": batch.digests.get(sample, ""),
                    "is_settled": self._queue.settled(sample) is not None,
                    "said": {name: one.content for name, one in self._queue.of_sample(sample).items()},
                }

            found, left = page([*batch.places], shown, begin)
            return {"step": batch.step, "samples": found, "next": left}

    def _said_before(self, begin: int) -> dict[str, Json]:
        """A page of the history."""
        found, left = page(self._queue.handed_in(), lambda each: told(*each), begin)
        return {"history": found, "next": left}

    def _sample(self, sample: str) -> OperatorReply:
        with self._queue.lock:
            batch = self._queue.open()
            self._queue.require_asked(batch, sample)
            self._queue.require_same(batch, sample)
            seen = view(self._queue.data, batch.places[sample])
            return OperatorReply({"sample": sample, "kind": seen.kind, "row": [*seen.row]}, seen.data)

    def _guesses(self, begin: int) -> dict[str, Json]:
        """A page of what the teacher says."""
        with self._queue.lock:
            batch = self._queue.open()
            samples = [*batch.places]
            found: list[Json] = []
            end, size = begin, 0
            while end < len(samples) and size < PAGE_BYTES:
                some = samples[end : end + _GUESSES_AT_ONCE]
                guessed = self._guess([batch.places[each] for each in some])
                for sample, (label, score) in zip(some, guessed, strict=True):
                    found.append({"sample": sample, "label": label, "score": score})
                    size += len(sample) + len(str(label))
                end += len(some)
            return {"guesses": found, "next": end if end < len(samples) else None}

    def _say(self, fields: Mapping[str, Any]) -> dict[str, Json]:
        """Takes what an annotator says of samples; see `AnnotationQueue.add`.

        What is too much for a message comes in several, and first all of it with `check_only`, which keeps nothing.
        """
        name, given = annotator_named(fields.get("annotator")), fields.get("said")
        is_final = fields.get("is_final", True) is not False
        if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
            raise InvalidValue("labels cannot be read", expected="a list of objects", received=f"{given!r}"[:100])
        if len(given) > _MOST_AT_ONCE:
            raise InvalidValue("too many labels at once", expected=f"at most {_MOST_AT_ONCE}", received=len(given))
        now, question = datetime.now(UTC).isoformat(timespec="seconds"), self._queue.question
        classes, size = len(question.classes), question.mask_size
        with self._queue.lock:
            self._queue.open()
            said = [annotation_of(each, name, now, classes, is_final=is_final, mask_size=size) for each in given]
            seen = {one.sample: each.get("digest") for one, each in zip(said, given, strict=True)}
            new, known = self._queue.add(said, seen, check_only=fields.get("check_only") is True)
            return {"taken": new, "known": known, "left": self._queue.left(), "version": self._queue.version}

    def _take_back(self, fields: Mapping[str, Any]) -> dict[str, Json]:
        name, sample = annotator_named(fields.get("annotator")), str(fields.get("sample", ""))
        with self._queue.lock:
            return {"taken_back": self._queue.take_back(sample, name), "version": self._queue.version}

    def _hand_in(self, annotator: str) -> dict[str, Json]:
        with self._queue.lock:
            handed_in = self._queue.hand_in(annotator)
            return {"handed_in": handed_in, "left": self._queue.left(), "version": self._queue.version}
