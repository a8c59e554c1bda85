"""Figure 16 of Chen et al. 2023 (A.4): AssistDeep whose training differential privacy covers (extra `dp`)."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from comity.experiments.charts import curves, legend_below, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Printed
from comity.privacy import Mechanism, account
from comity.protocols.assisted_learning.studies.comparisons import Comparison, comparison
from comity.protocols.assisted_learning.studies.pair import Pair
from comity.protocols.assisted_learning.studies.sizes import ALEXNET, RESNET, SMALL, SVHN, SVHN_RESNET, TINY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EPSILONS = (None, 10.0, 5.0, 1.0)
"""From no noise to much."""
_PRINTED = {"learner": 15.5, "provider": 5.2}
"""ε' of each party, to one place."""


@dataclass(frozen=True)
class Training:
    """A party's steps in the paper's session on CIFAR-10, γ = .3.

    Attributes:
        samples: Its samples.
        steps: Its steps in all ten rounds, its share of 20,000.
        batch_size: Samples in a step.
    """

    samples: int
    steps: int
    batch_size: int = 256


@dataclass(frozen=True)
class Noises:
    """AssistDeep with and without noise, and what the noise of the paper's session is worth.

    Attributes:
        pairs: By what they are called; each is run with every ε.
        epsilons: ε of a step; None for no noise.
        seeds: Means are taken over them.
        accounted: Trainings to account for, with ε = 1 a step, by party; none where it would take too long.
    """

    pairs: tuple[tuple[str, Pair], ...]
    epsilons: tuple[float | None, ...] = _EPSILONS
    seeds: tuple[int, ...] = (0,)
    accounted: tuple[tuple[str, Training], ...] = (
        ("learner", Training(9250, 5400)),
        ("provider", Training(25000, 14600)),
    )

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return Comparison(self.pairs).measured_on


def train(settings: Noises, context: ExperimentContext) -> Metrics:
    """Runs AssistDeep on each pair with each noise.

    Returns:
        `runs`: by pair and noise, what `comparison` says of AssistDeep; `accounted`: by party, the guarantee of the paper's
        session, by the PRV accountant and by the paper's formula.
    """
    runs = {}
    for name, pair in settings.pairs:
        context.say(f"  {name}")
        noisy = tuple((_name(epsilon), replace(pair, epsilon=epsilon)) for epsilon in settings.epsilons)
        found = comparison(Comparison(noisy, ("AssistDeep",), settings.seeds), context)
        runs[name] = {noise: one["AssistDeep"] for noise, one in found.items()}
    guarantees = {
        party: account(
            Mechanism.per_step(1.0), sampling_rate=training.batch_size / training.samples, steps=training.steps
        )
        for party, training in settings.accounted
    }
    return {"runs": runs, "accounted": {party: asdict(each) for party, each in guarantees.items()}}


def _name(epsilon: float | None) -> str:
    return "without noise" if epsilon is None else f"ε = {epsilon:g}"


def draw(metrics: Metrics, figure: Figure) -> None:
    """Test accuracy over rounds, a line for each noise."""
    runs = metrics["runs"]
    for axes, one in zip(panels(figure, list(runs), rows=1 + (len(runs) > 3), level=True), runs.values(), strict=True):
        curves(axes, {noise: row["accuracy"] for noise, row in one.items()}, y="test accuracy", legend=False)
    legend_below(figure)


def _degrades(metrics: Metrics) -> bool:
    ends = [[row["last"] for row in one.values()] for one in metrics["runs"].values()]
    # From noise to noise a point is within what seeds differ by.
    falls = (after <= before + 1 for each in ends for before, after in itertools.pairwise(each))
    return all(falls) and all(each[-1] < each[0] for each in ends)


def _little_is_harmless(metrics: Metrics) -> bool | None:
    ends = [(one["without noise"], one.get("ε = 10")) for one in metrics["runs"].values()]
    return all(noisy["last"] > clean["last"] - 3 for clean, noisy in ends if noisy)


def _formula(metrics: Metrics) -> bool | None:
    found = metrics["accounted"]
    return all(abs(found[party]["paper_epsilon"] - value) < 0.1 for party, value in _PRINTED.items()) if found else None


_DIGITS = replace(SMALL, per_class=130, batch_size=64)

EXPERIMENTS = (
    Experiment(
        "assisted-learning/fig-16",
        "Fig. 16: AssistDeep by the noise of differential privacy, γ = .3",
        {
            "smoke": Noises((("mlp of 8", TINY),), (None, 100.0), accounted=()),
            "digits": Noises((("mlp of 64", _DIGITS), ("mlp of 128", replace(_DIGITS, hidden=128))), seeds=(0, 1, 2)),
            "paper": Noises(
                (
                    ("AlexNet, CIFAR-10", ALEXNET),
                    # BatchNorm mixes samples, which rules differential privacy out.
                    ("ResNet-18, CIFAR-10", replace(RESNET, norm="group")),
                    ("AlexNet, SVHN", SVHN),
                    ("ResNet-18, SVHN", replace(SVHN_RESNET, norm="group")),
                )
            ),
        },
        "in place of the four settings 130 handwritten digits (scikit-learn) of each class and an mlp with 64 and 128 hidden "
        "units; T + T' = 100, I = 5, learning rate .003, batches of 64; the noise is accounted for at the paper's own sizes",
        train,
        draw,
        (
            Claim("the more noise, the lower AssistDeep ends (to within 1 point)", _degrades),
            Claim("with ε = 10 a step it ends within 3 points of training without noise", _little_is_harmless),
            Claim("the paper's formula gives the ε' that it prints, for ε = 1 and γ = .3 on CIFAR-10", _formula),
        ),
        tuple(
            Printed(f"{party}'s ε' by the formula of A.4", ("accounted", party, "paper_epsilon"), value)
            for party, value in _PRINTED.items()
        ),
    ),
)
"""What this module runs."""
