"""Samples into classes: one head with a score for each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from comity.contract import HeadSpec, InputSpec, Json, Option, Preprocessing, TaskSpec
from comity.data import Splits
from comity.tasks.checks import bad_option, read_options
from comity.tasks.objective import Objective, Outputs, Reduction, Targets, by_name, mean_of, require_shape, sole
from comity.tasks.samples import SampleKind, wrong_targets

HEAD = "class"
_BINS = 15
"""Of the calibration error (Guo et al. 2017)."""


def classification(shape: tuple[int, ...], classes: int, preprocessing: Preprocessing | None = None) -> TaskSpec:
    """A task of which nothing but the sizes is said.

    Args:
        shape: Shape of one input, channels first.
        classes: Number of classes.
        preprocessing: What is done to every input; None for nothing.
    """
    inputs = InputSpec(shape=shape, preprocessing=preprocessing or Preprocessing())
    return TaskSpec(kind=KIND.name, inputs=inputs, heads=(HeadSpec(name=HEAD, size=classes),))


class ClassificationKind(SampleKind):
    """See `TaskKind`. The option `smoothing` is the label smoothing, from 0 to below 1."""

    name = "classification"
    head = HEAD
    least = 2
    counted = "classes"
    options: ClassVar[Mapping[str, Option]] = {"smoothing": 0.0}

    def require_usable(self, task: TaskSpec) -> None:
        """See `TaskKind.require_usable`."""
        super().require_usable(task)
        if not 0 <= float(read_options(task, self.options)["smoothing"]) < 1:
            raise bad_option(task, "smoothing", "0 to below 1")

    def takes(self, data: object) -> bool:
        """See `TaskKind.takes`; kinds that derive from this one take the same."""
        return isinstance(data, Splits) and data.train.task in {self.name, "classification"}

    def require_targets(self, targets: Tensor, head: HeadSpec, shape: tuple[int, ...]) -> None:
        """See `SampleKind.require_targets`: int64 `[samples]`, each one of the classes."""
        del shape
        low, high = (int(bound) for bound in targets.aminmax()) if targets.dtype == torch.int64 else (0, 0)
        if targets.dtype != torch.int64 or targets.ndim != 1 or low < 0 or high >= head.size:
            raise wrong_targets(
                self.name,
                f"int64 [samples], from 0 to {head.size - 1}",
                f"{targets.dtype} {list(targets.shape)}, from {low} to {high}",
                "number the classes from 0",
            )

    def objective(self, task: TaskSpec) -> Objective:
        """See `TaskKind.objective`."""
        return CrossEntropy(task.heads[0], float(read_options(task, self.options)["smoothing"]))


class CrossEntropy:
    """The cross-entropy of classes; see `Objective`.

    Args:
        head: The head, with the classes' weights.
        smoothing: Share of each label that is spread over all classes.
    """

    heads: tuple[str, ...] = ()

    def __init__(self, head: HeadSpec, smoothing: float = 0.0) -> None:
        self._head = head
        self._smoothing = smoothing
        self._weights = torch.tensor(head.weights) if head.weights else None

    def loss(self, outputs: Outputs, targets: Targets, reduction: Reduction) -> Tensor:
        """See `Objective.loss`. With weights, a sample's loss is multiplied with that of its class, and the mean is plain."""
        logits, labels = sole(outputs, self._head), targets[self._head.name]
        require_shape(logits, (len(labels), self._head.size))
        if self._weights is None:
            return cross_entropy(logits, labels, reduction=reduction, label_smoothing=self._smoothing)
        each = cross_entropy(logits, labels, reduction="none", label_smoothing=self._smoothing)
        weighted = each * self._weights.to(each)[labels]
        return weighted.mean() if reduction == "mean" else weighted

    def imitated(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:
        """See `Imitable.imitated`: the cross-entropy against the teacher's probabilities."""
        said, taught = sole(outputs, self._head), sole(teacher, self._head)
        return cross_entropy(said / temperature, (taught / temperature).softmax(dim=1))

    def tally(self) -> ClassTally:
        """See `Objective.tally`."""
        return ClassTally(self._head)

    def predict(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Objective.predict`: the likeliest class, and the probability of each."""
        logits = sole(outputs, self._head)
        return {HEAD: logits.argmax(dim=1), "probability": logits.softmax(dim=1)}


class ClassTally:
    """A test of a classifier; see `Tally`."""

    def __init__(self, head: HeadSpec) -> None:
        self._head = head
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """See `Tally.add`."""
        self._logits.append(sole(outputs, self._head).float().cpu())
        self._labels.append(targets[self._head.name].cpu())

    def results(self) -> dict[str, Json]:
        """See `Tally.results`. Means over classes are over those that the test has samples of."""
        from torchmetrics.functional import classification as of  # noqa: PLC0415 - it takes a second

        logits, labels, size = torch.cat(self._logits), torch.cat(self._labels), self._head.size
        predicted, there = logits.argmax(dim=1), torch.bincount(labels, minlength=size) > 0
        recall = of.multiclass_recall(predicted, labels, size, average=None, validate_args=False)
        f1 = of.multiclass_f1_score(predicted, labels, size, average=None, validate_args=False)
        found: dict[str, Json] = {
            "accuracy": int((predicted == labels).sum()) / len(labels),
            "balanced_accuracy": mean_of(recall, there),
            "f1": mean_of(f1, there),
        }
        chances = logits.softmax(dim=1)
        if bool(torch.isfinite(chances).all()):
            found |= ranking(chances[:, there], labels.unsqueeze(1) == torch.nonzero(there).flatten())
            error = of.multiclass_calibration_error(chances, labels, size, n_bins=_BINS, validate_args=False)
            found["calibration_error"] = float(error)
        return found | {"recall": by_name(self._head, recall, there)}


def ranking(chances: Tensor, truth: Tensor) -> dict[str, Json]:
    """AUROC and average precision, the means over columns of which it can be said.

    Args:
        chances: What a model says, `[samples, columns]`.
        truth: bool, the same shape.
    """
    from torchmetrics.functional import classification as of  # noqa: PLC0415

    has, lacks = truth.any(dim=0), (~truth).any(dim=0)
    both = has & lacks
    found: dict[str, Json] = {}
    for name, columns, measure in (
        ("auroc", both, of.multilabel_auroc),
        ("average_precision", has, of.multilabel_average_precision),
    ):
        count = int(columns.sum())
        if count == 0:
            found[name] = None
            continue
        one = chances[:, columns], truth[:, columns].long()
        each = measure(*one, num_labels=count, average=None, validate_args=False)
        found[name] = float(each.double().mean())
    return found


KIND = ClassificationKind()
