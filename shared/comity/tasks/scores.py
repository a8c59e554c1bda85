"""What each kind of task is scored by, and how numbers of a test are called and written; importing it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Written = Literal["share", "number"]
"""How a number is written; a `share` is from 0 to 1 and written in percent."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a test says of a model.

    Attributes:
        name: Its name among those of a test.
        title: What it is called in a table.
        written: How it is written.
        falls: Whether less is better.
    """

    name: str
    title: str
    written: Written = "share"
    falls: bool = False


_METRICS = (
    Metric("accuracy", "accuracy"),
    Metric("auroc", "AUROC"),
    Metric("average_precision", "average precision"),
    Metric("balanced_accuracy", "balanced accuracy"),
    Metric("calibration_error", "calibration error", falls=True),
    Metric("f1", "F1"),
    Metric("iou", "IoU"),
    Metric("iou_by_class", "IoU by class"),
    Metric("loss", "loss", "number", falls=True),
    Metric("mae", "MAE", "number", falls=True),
    Metric("r2", "R²", "number"),
    Metric("recall", "recall"),
    Metric("return", "return", "number"),
    Metric("rmse", "RMSE", "number", falls=True),
    Metric("rmse_by_target", "RMSE by target", "number", falls=True),
)

METRICS: Mapping[str, Metric] = {each.name: each for each in _METRICS}
"""The numbers of the built-in kinds, by name."""

_SCORES: Mapping[str, tuple[str, str]] = {
    "classification": ("accuracy", "recall"),
    "multilabel": ("average_precision", "recall"),
    "regression": ("rmse", "rmse_by_target"),
    "reinforcement": ("return", ""),
    "segmentation": ("iou", "recall"),
    "several": ("loss", ""),
}
"""By kind of task, the one number that models are compared by, and the one that a table has for each class or target."""

_CLASSES = {"loss", "accuracy", "balanced_accuracy", "f1"}
_RANKED = {*_CLASSES, "auroc", "average_precision", "calibration_error"}
_OF_EACH = {"iou_by_class", "recall", "rmse_by_target"}

_NUMBERS: Mapping[str, set[str]] = {
    "classification": _RANKED,
    "multilabel": _RANKED,
    "regression": {"loss", "mae", "r2", "rmse"},
    "reinforcement": {"return"},
    "segmentation": {*_CLASSES, "iou"},
}
"""The single numbers that a test has, by kind of task."""


def has_number(kind: str, name: str) -> bool:
    """Whether a test in tasks of a kind has a number, which is one and not one for each class or target.

    Args:
        kind: The kind; of one that a package adds, or of several heads, every number may be there.
        name: The number's name, that of a head's with its head: `depth.rmse`.
    """
    head, _, own = name.rpartition(".")
    if kind == "several":
        return own in set[str]().union(*_NUMBERS.values()) - {"loss", "return"} if head else own == "loss"
    return not head and own in _NUMBERS.get(kind, METRICS.keys() - _OF_EACH)


def score_of(kind: str) -> Metric:
    """The number that models for tasks of a kind are compared by; the loss for kinds that packages add."""
    return METRICS[_SCORES.get(kind, ("loss", ""))[0]]


def detail_of(kind: str) -> Metric | None:
    """What a test says of each class, label or target in tasks of a kind; None where it says nothing of each."""
    name = _SCORES.get(kind, ("", ""))[1]
    return METRICS[name] if name else None


def metric(name: str) -> Metric:
    """A number of a test by its name, also one that a package adds, or of one of several heads: `depth.rmse`."""
    if name in METRICS:
        return METRICS[name]
    head, _, own = name.rpartition(".")
    if own in METRICS:
        known = METRICS[own]
        return Metric(name, f"{head}: {known.title}", known.written, known.falls)
    return Metric(name, name.replace("_", " "), "number")
