"""Samples with any number of labels: one head with a score for each label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from comity.contract import HeadSpec, Json, TaskSpec
from comity.tasks.classification import ranking
from comity.tasks.objective import Objective, Outputs, Reduction, Targets, by_name, mean_of, require_shape, sole
from comity.tasks.samples import SampleKind, wrong_targets

HEAD = "label"


class MultilabelKind(SampleKind):
    """See `TaskKind`."""

    name = "multilabel"
    head = HEAD
    counted = "labels"

    def require_targets(self, targets: Tensor, head: HeadSpec, shape: tuple[int, ...]) -> None:
        """See `SampleKind.require_targets`: bool `[samples, labels]`."""
        del shape
        if targets.dtype != torch.bool or targets.shape[1:] != (head.size,):
            raise wrong_targets(
                self.name,
                f"bool [samples, {head.size}]",
                f"{targets.dtype} {list(targets.shape)}",
                "say of each label whether the sample has it",
            )

    def objective(self, task: TaskSpec) -> Objective:
        """See `TaskKind.objective`."""
        return BinaryCrossEntropy(task.heads[0])


class BinaryCrossEntropy:
    """The binary cross-entropy of each label, the mean over labels; see `Objective`.

    Args:
        head: The head. A label's weight multiplies its loss where a sample has the label, as `pos_weight` of torch does.
    """

    heads: tuple[str, ...] = ()

    def __init__(self, head: HeadSpec) -> None:
        self._head = head
        self._weights = torch.tensor(head.weights) if head.weights else None

    def loss(self, outputs: Outputs, targets: Targets, reduction: Reduction) -> Tensor:
        """See `Objective.loss`."""
        logits, truth = sole(outputs, self._head), targets[self._head.name]
        require_shape(logits, (len(truth), self._head.size))
        # log(1 + exp(∓x)): never below 0, which x - x·y + … in float32 may be.
        each = softplus(torch.where(truth, -logits, logits))
        if self._weights is not None:
            each = torch.where(truth, each * self._weights.to(each), each)
        of_samples = each.mean(dim=1)
        return of_samples.mean() if reduction == "mean" else of_samples

    def imitated(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:
        """See `Imitable.imitated`: the binary cross-entropy against the teacher's probability of each label."""
        said, taught = sole(outputs, self._head), sole(teacher, self._head)
        return binary_cross_entropy_with_logits(said / temperature, (taught / temperature).sigmoid())

    def tally(self) -> LabelTally:
        """See `Objective.tally`."""
        return LabelTally(self._head)

    def predict(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Objective.predict`: the labels, each with a probability of a half or more, and their probabilities."""
        chances = sole(outputs, self._head).sigmoid()
        return {HEAD: chances >= 0.5, "probability": chances}


class LabelTally:
    """A test of a model of labels; see `Tally`."""

    def __init__(self, head: HeadSpec) -> None:
        self._head = head
        self._logits: list[Tensor] = []
        self._truth: list[Tensor] = []

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """See `Tally.add`."""
        self._logits.append(sole(outputs, self._head).float().cpu())
        self._truth.append(targets[self._head.name].cpu())

    def results(self) -> dict[str, Json]:
        """See `Tally.results`. Accuracy is over all labels of all samples; means are over labels that the test has."""
        from torchmetrics.functional import classification as of  # noqa: PLC0415 - it takes a second

        logits, truth, size = torch.cat(self._logits), torch.cat(self._truth), self._head.size
        chances, there = logits.sigmoid(), truth.any(dim=0)
        said, wanted = (chances >= 0.5).long(), truth.long()
        recall = of.multilabel_recall(said, wanted, size, average=None, validate_args=False)
        missed = of.multilabel_specificity(said, wanted, size, average=None, validate_args=False)
        f1 = of.multilabel_f1_score(said, wanted, size, average=None, validate_args=False)
        found: dict[str, Json] = {
            "accuracy": int((said == wanted).sum()) / said.numel(),
            "balanced_accuracy": mean_of((recall + missed) / 2, there & (~truth).any(dim=0)),
            "f1": mean_of(f1, there),
        }
        if bool(torch.isfinite(chances).all()):
            found |= ranking(chances, truth)
            error = of.binary_calibration_error(chances.flatten(), wanted.flatten(), validate_args=False)
            found["calibration_error"] = float(error)
        return found | {"recall": by_name(self._head, recall, there)}


KIND = MultilabelKind()
