"""A class for each pixel: one head with a score for each class, at each pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from comity.contract import HeadSpec, Json, TaskSpec
from comity.tasks.objective import Objective, Outputs, Reduction, Targets, by_name, mean_of, require_shape, sole
from comity.tasks.samples import SampleKind, wrong_targets

HEAD = "mask"
IGNORED = 255
"""The label of pixels that do not count."""


class SegmentationKind(SampleKind):
    """See `TaskKind`. Pixels with the label `IGNORED` do not count."""

    name = "segmentation"
    head = HEAD
    least = 2
    counted = "classes of pixels"

    def require_targets(self, targets: Tensor, head: HeadSpec, shape: tuple[int, ...]) -> None:
        """See `SampleKind.require_targets`: uint8 `[samples, height, width]`, each one of the classes or ignored."""
        if targets.dtype != torch.uint8 or targets.shape[1:] != shape[1:] or len(shape) < 2:
            raise wrong_targets(
                self.name,
                f"uint8 {['samples', *shape[1:]]}, a class for each pixel",
                f"{targets.dtype} {list(targets.shape)}",
                "bring masks to the size of the pictures, with the number of the class at each pixel",
            )
        most = int(targets[targets != IGNORED].amax()) if bool((targets != IGNORED).any()) else 0
        if most >= head.size:
            raise wrong_targets(
                self.name, f"0 to {head.size - 1}, or {IGNORED}", most, "number the classes of pixels from 0"
            )

    def objective(self, task: TaskSpec) -> Objective:
        """See `TaskKind.objective`."""
        return PixelCrossEntropy(task.heads[0])


class PixelCrossEntropy:
    """The cross-entropy of pixels, the mean over those of a sample that count; see `Objective`.

    Args:
        head: The head, with the classes' weights.
    """

    heads: tuple[str, ...] = ()

    def __init__(self, head: HeadSpec) -> None:
        self._head = head
        self._weights = torch.tensor(head.weights) if head.weights else None

    def loss(self, outputs: Outputs, targets: Targets, reduction: Reduction) -> Tensor:
        """See `Objective.loss`. A sample without a pixel that counts has a loss of 0."""
        logits, labels = sole(outputs, self._head), targets[self._head.name].long()
        require_shape(logits, (len(labels), self._head.size, *labels.shape[1:]))
        each = cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
        counted = labels != IGNORED
        if self._weights is not None:
            each = each * self._weights.to(each)[labels.where(counted, 0)]
        pixels = tuple(range(1, each.ndim))
        of_samples = each.sum(dim=pixels) / counted.sum(dim=pixels).clamp(min=1)
        return of_samples.mean() if reduction == "mean" else of_samples

    def tally(self) -> PixelTally:
        """See `Objective.tally`."""
        return PixelTally(self._head)

    def predict(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Objective.predict`: the likeliest class of each pixel, and the probability of each."""
        logits = sole(outputs, self._head)
        return {HEAD: logits.argmax(dim=1), "probability": logits.softmax(dim=1)}


class PixelTally:
    """A test of masks; see `Tally`. What is kept does not grow with the number of pixels."""

    def __init__(self, head: HeadSpec) -> None:
        from torchmetrics import classification as of  # noqa: PLC0415 - it takes a second

        self._head = head
        self._seen = of.MulticlassConfusionMatrix(head.size, ignore_index=IGNORED, validate_args=False)

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """See `Tally.add`."""
        predicted = sole(outputs, self._head).argmax(dim=1).cpu()
        self._seen.update(predicted, targets[self._head.name].long().cpu())

    def results(self) -> dict[str, Json]:
        """See `Tally.results`. Means over classes are over those that the test has pixels of."""
        matrix = self._seen.compute().double()
        right, true, said = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
        there = true > 0
        recall, iou = right / true.clamp(min=1), right / (true + said - right).clamp(min=1)
        return {
            "accuracy": float(right.sum() / true.sum()) if bool(there.any()) else None,
            "balanced_accuracy": mean_of(recall, there),
            "f1": mean_of(2 * right / (true + said).clamp(min=1), there),
            "iou": mean_of(iou, there),
            "recall": by_name(self._head, recall, there),
            "iou_by_class": by_name(self._head, iou, there),
        }


KIND = SegmentationKind()
