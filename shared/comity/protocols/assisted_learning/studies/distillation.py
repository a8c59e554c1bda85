"""Figure 15 of Chen et al. 2023 (A.2): AssistKD, in which a small model crosses and a large one learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from comity.experiments.reproduction import Claim, Experiment, Metrics
from comity.protocols.assisted_learning.studies.comparisons import Comparison, comparison, draw, over
from comity.protocols.assisted_learning.studies.pair import OwnModel
from comity.protocols.assisted_learning.studies.sizes import ALEXNET, SMALL, TINY, scales

_ALGORITHMS = ("AssistKD", "SGD", "Learner-SGD")
_PAPER = replace(
    ALEXNET,
    model="cnn-kd",
    own=OwnModel("resnet18-cifar"),
    split="half-class",
    optimizer="sgd",
    learning_rate=0.1,
)
_SMALL = replace(
    SMALL,
    hidden=32,
    own=OwnModel("mlp", 64),
    split="half-class",
    per_class=40,
    optimizer="sgd",
    learning_rate=0.1,
)
_TINY = replace(TINY, hidden=4, own=OwnModel("mlp", 8, epochs=1), split="half-class", optimizer="sgd")


def _own_over(other: str, *, by: float = 0.0) -> Callable[[Metrics], bool | None]:
    """Whether the learner's own model ends above another algorithm, in points; less than none for "near"."""

    def holds(metrics: Metrics) -> bool | None:
        ends = [(one["AssistKD"].get("own"), one[other]["accuracy"][-1]) for one in metrics.values()]
        return None if any(own is None for own, _ in ends) else all(own > 100 * end + by for own, end in ends)

    return holds


_DIGITS = Comparison(
    (
        ("40 samples, an mlp of 32 crosses, an mlp of 64 learns", _SMALL),
        ("130 samples, an mlp of 32 crosses, an mlp of 64 learns", replace(_SMALL, per_class=130)),
    ),
    _ALGORITHMS,
    seeds=(0, 1, 2, 3, 4),
)

EXPERIMENTS = (
    Experiment(
        "assisted-learning/fig-15",
        "Fig. 15: AssistKD, SGD and Learner-SGD, a CNN crosses and a ResNet-18 learns, CIFAR-10",
        scales(
            Comparison((("a CNN crosses, a ResNet-18 learns", _PAPER),), _ALGORITHMS),
            Comparison((("an mlp of 32 crosses, an mlp of 64 learns", _SMALL),), _ALGORITHMS),
            Comparison((("an mlp of 4 crosses, an mlp of 8 learns", _TINY),), _ALGORITHMS),
        )
        | {"digits": _DIGITS},
        "in place of CIFAR-10 handwritten digits (scikit-learn), 40 and 130 at the learner, half of these of one class, and "
        "five times as many at the provider; an mlp with 32 hidden units for the CNN and one with 64 for ResNet-18; T + T' = "
        "100, I = 5, batches of 32",
        comparison,
        draw,
        (
            Claim("the model that crosses comes within 3 points of SGD on all data", over("AssistKD", "SGD", by=-3)),
            Claim("it ends more than 5 points above Learner-SGD", over("AssistKD", "Learner-SGD", by=5)),
            Claim("the learner's own model, taught by it, ends above learning alone", _own_over("Learner-SGD")),
            Claim("the learner's own model ends within 3 points of SGD on all data", _own_over("SGD", by=-3)),
        ),
    ),
)
"""What this module runs."""
