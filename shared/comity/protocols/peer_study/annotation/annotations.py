"""Annotations: what people say of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comity.contract import Json
from comity.errors import InvalidValue
from comity.protocols.peer_study.annotation.masks import checked

LONGEST_NAME, LONGEST_COMMENT = 100, 2000
"""Characters of an annotator's name, and of a comment."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one annotator says of one sample.

    Attributes:
        sample: Its id in the pool.
        annotator: Who says it.
        label: The class, or a mask, see `masks`; None where the annotator skips the sample.
        is_unsure: Whether the annotator is not sure of it.
        comment: What else there is to say of the sample.
        at: When it was said, UTC, ISO 8601.
        is_final: Whether it is handed in: it counts, and is changed no more.
    """

    sample: str
    annotator: str
    label: int | str | None
    is_unsure: bool = False
    comment: str = ""
    at: str = ""
    is_final: bool = False

    @property
    def content(self) -> dict[str, Json]:
        """All of it as a JSON object."""
        return {each: getattr(self, each) for each in self.__slots__}

    def says_as(self, other: Annotation) -> bool:
        """Whether another says the same of the sample."""
        return (self.label, self.is_unsure, self.comment) == (other.label, other.is_unsure, other.comment)


def annotation_of(
    fields: Mapping[str, Any],
    annotator: str,
    at: str,
    classes: int,
    *,
    is_final: bool,
    mask_size: tuple[int, int] | None = None,
) -> Annotation:
    """An annotation, of a JSON object that somebody made.

    Args:
        fields: `sample`, and `label` or `skipped`; `unsure`, `comment` and `at` where there is something to say.
        annotator: Who says it.
        at: When, where the fields do not say.
        classes: How many there are.
        is_final: See `Annotation`.
        mask_size: Height and width of masks, where they are asked for; None where classes are.

    Raises:
        InvalidValue: A field is missing, or is not what is expected.
    """
    sample = fields.get("sample")
    if not isinstance(sample, str) or not sample:
        raise InvalidValue("a label is of no sample", expected="the sample's id", received=f"{sample!r}"[:100])
    label: Any = fields.get("label")
    skipped = fields.get("skipped", False)
    if label is None and skipped is not True:
        raise InvalidValue(
            f"the label of sample {sample} is missing",
            expected="a class, or that it is skipped",
            received="neither",
            action="label it, or say that it is skipped",
        )
    if mask_size is not None and label is not None and not skipped:
        label = checked(label, mask_size, classes, sample)
    is_number = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < classes
    is_class = is_number if mask_size is None else isinstance(label, str)
    if label is not None and (skipped or not is_class):
        raise InvalidValue(
            f"the label of sample {sample} is no class",
            expected=f"a number from 0 to {classes - 1}, and not skipped",
            received=f"{label!r}{', skipped' if skipped else ''}"[:100],
            action="correct it",
        )
    unsure, comment = fields.get("unsure", False), fields.get("comment", "")
    if not isinstance(unsure, bool) or not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        raise InvalidValue(
            f"what is said of sample {sample} cannot be read",
            expected=f"unsure as true or false, and a comment of at most {LONGEST_COMMENT} characters",
            received=f"{unsure!r} and {str(comment)[:60]!r}",
            action="correct it",
        )
    said_at = fields.get("at") or at
    return Annotation(sample, annotator, label, unsure, comment, str(said_at)[:40], is_final)


def annotator_named(name: Any) -> str:
    """An annotator's name, as it was given.

    Raises:
        InvalidValue: It is none.
    """
    if isinstance(name, str) and 0 < len(name.strip()) <= LONGEST_NAME and name.isprintable():
        return name.strip()
    raise InvalidValue(
        "an annotator needs a name",
        expected=f"1 to {LONGEST_NAME} characters in one line",
        received=f"{name!r}"[:120],
        action="give one with --as",
    )
