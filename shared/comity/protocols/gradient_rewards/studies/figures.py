"""Figures 2 to 7 of Xu et al. 2021: what gradient rewards do to the clients' models, round by round."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import curves, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Printed, Scale
from comity.protocols.gradient_rewards.studies.consortium import Consortium, PartitionName
from comity.protocols.gradient_rewards.studies.federation import Federation, GradientRewards, Payment, Round, Vector
from comity.protocols.gradient_rewards.studies.sizes import CIFAR, DIGITS, MNIST, SMALL, SMOKE, each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WRONG = (0.2, 0.4, 0.6, 0.0, 0.0)


@dataclass(frozen=True)
class Watched:
    """Consortia to look into.

    Attributes:
        consortia: By what they are called.
        losses: Whether to evaluate each client's model on all clients' samples after each round.
    """

    consortia: tuple[tuple[str, Consortium], ...]
    losses: bool = False

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return tuple(dict.fromkeys(name for _, one in self.consortia for name in one.measured_on))


def watch(settings: Watched, context: ExperimentContext) -> Metrics:
    """Runs each consortium.

    Returns:
        By consortium, lists over rounds of lists over clients: `accuracy`, `importance`, `kept` (share of the aggregate),
        `distance` (of the model from the server's), `last_layer` (of its last layer), `reward` (of the reward from the
        aggregate), `loss`; and over rounds `moved`, the server's distance from where it began.
    """
    return {name: _watched(name, consortium, settings.losses, context) for name, consortium in settings.consortia}


def _watched(name: str, consortium: Consortium, losses: bool, context: ExperimentContext) -> dict[str, Any]:
    context.say(f"  {name}")
    federation = Federation(consortium.script(context.datasets))
    kept: dict[str, list[Any]] = {
        key: [] for key in ("importance", "kept", "distance", "last_layer", "reward", "loss", "moved")
    }
    last = federation.last_layer
    first: list[Vector] = []

    def look(round: Round, paid: Payment, models: Sequence[Vector], server: Vector) -> None:
        first.append(round.server)
        kept["importance"].append(list(paid.importance))
        kept["kept"].append([float((reward != 0).float().mean()) for reward in paid.rewards])
        kept["distance"].append([float((model - server).norm()) for model in models])
        kept["last_layer"].append([float((model[-last:] - server[-last:]).norm()) for model in models])
        kept["reward"].append([float((reward - paid.aggregate).norm()) for reward in paid.rewards])
        kept["moved"].append(float((server - first[0]).norm()))
        if losses:
            kept["loss"].append([fmean(federation.losses([model] * len(models))) for model in models])

    record = federation.run(GradientRewards(federation.terms), watch=look, every_round=True, say=context.say)
    means = {f"client-{at + 1}": fmean(each[at] for each in kept["importance"]) for at in range(consortium.clients)}
    sparse = {
        f"client-{at + 1}": 100 * (1 - fmean(each[at] for each in kept["kept"])) for at in range(consortium.clients)
    }
    return {**kept, "accuracy": record.accuracies, "mean_importance": means, "mean_sparsity": sparse}


def _lines(rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    return {f"A{at + 1}": [row[at] for row in rows] for at in range(len(rows[0]))}


def _drawn(what: str, label: str) -> Any:
    def draw(metrics: Metrics, figure: Figure) -> None:
        for axes, one in zip(panels(figure, list(metrics), rows=1 + (len(metrics) > 3)), metrics.values(), strict=True):
            curves(axes, _lines(one[what]), y=label)

    return draw


def _draw_distances(metrics: Metrics, figure: Figure) -> None:
    (axes,) = panels(figure, [""])
    (one,) = metrics.values()
    curves(axes, _lines(one["distance"]) | {"server from w0": one["moved"]}, y="l2 distance from the server's model")


def _end(one: Mapping[str, Any], what: str) -> list[float]:
    return list(one[what][-1])


def _noisy_ordered(what: str, *, rising: bool) -> Any:
    """Whether a final or mean value orders clients 1 to 3 by their noise, with the clean ones beyond."""

    def holds(metrics: Metrics) -> bool:
        (one,) = metrics.values()
        values = list(one["mean_importance"].values()) if what == "mean_importance" else _end(one, what)
        values = values if rising else [-each for each in values]
        return max(values[3:]) < values[0] < values[1] < values[2]

    return holds


def _spreads_grow(metrics: Metrics) -> bool:
    spreads = {name: max(_end(one, "accuracy")) - min(_end(one, "accuracy")) for name, one in metrics.items()}
    of = {
        kind: fmean(value for name, value in spreads.items() if name.endswith(kind)) for kind in ("UNI", "POW", "CLA")
    }
    return of["UNI"] < of["POW"] < of["CLA"]


def _first_below_last(what: str, kinds: tuple[str, ...], *, sign: int = 1) -> Any:
    """Whether the last client ends above the first in a value, or with sign -1 below it."""

    def holds(metrics: Metrics) -> bool:
        rows = [_end(one, what) for name, one in metrics.items() if name.endswith(kinds)]
        return all(sign * row[0] < sign * row[-1] for row in rows)

    return holds


def _losses_fall(metrics: Metrics) -> bool:
    means = [fmean(_end(one, "loss")) for one in metrics.values()]
    return all(after < before for before, after in itertools.pairwise(means))


def _first_gains_most(metrics: Metrics) -> bool:
    ones = list(metrics.values())
    gains = [before - after for before, after in zip(_end(ones[0], "loss"), _end(ones[-1], "loss"), strict=True)]
    return gains[0] == max(gains) > 0


def _partitions(*bases: tuple[str, Consortium]) -> Watched:
    kinds: tuple[PartitionName, ...] = ("UNI", "POW", "CLA")
    return Watched(
        tuple((f"{name} {kind}", replace(each(one, kind), beta=2.0)) for name, one in bases for kind in kinds)
    )


def _altruism(base: Consortium, *betas: float) -> Watched:
    return Watched(tuple((f"β = {beta:g}", replace(each(base, "CLA"), beta=beta)) for beta in betas), losses=True)


def _noisy(base: Consortium) -> Watched:
    return Watched((("corrupted labels", replace(base, clients=5, wrong=_WRONG)),))


_PARTITIONS: dict[Scale, Watched] = {
    "smoke": _partitions(("digits", SMOKE)),
    "digits": _partitions(("digits", DIGITS)),
    "small": _partitions(("MNIST", SMALL)),
    "paper": _partitions(("MNIST", MNIST), ("CIFAR-10", CIFAR)),
}
_SUBSTITUTE = (
    "in place of MNIST five clients with 60 handwritten digits (scikit-learn) each, on average, and mlp for cnn-mnist; "
    "30 rounds; no CIFAR-10"
)
_MANY = replace(DIGITS, samples=130, rounds=60)

EXPERIMENTS = (
    Experiment(
        "gradient-rewards/fig-2",
        "Fig. 2: distance of each client's model from the server's, labels of clients 1 to 3 corrupted",
        {"smoke": _noisy(SMOKE), "digits": _noisy(_MANY), "small": _noisy(SMALL), "paper": _noisy(MNIST)},
        "130 handwritten digits (scikit-learn) a client for 600 MNIST images; mlp for cnn-mnist; 60 rounds",
        watch,
        _draw_distances,
        (
            Claim(
                "importance falls with the noise, on average over rounds",
                _noisy_ordered("mean_importance", rising=False),
            ),
            Claim(
                "the noisier a client, the further its model ends from the server's",
                _noisy_ordered("distance", rising=True),
            ),
        ),
        tuple(
            Printed(
                f"importance of client {at}, mean over rounds",
                ("corrupted labels", "mean_importance", f"client-{at}"),
                value,
            )
            for at, value in enumerate((0.194, 0.088, 0.043, 0.331, 0.342), start=1)
        )
        + tuple(
            Printed(
                f"sparsity of the rewards of client {at}, %",
                ("corrupted labels", "mean_sparsity", f"client-{at}"),
                value,
            )
            for at, value in ((2, 67.6), (3, 83.0), (4, 3.5), (5, 1.1))
        ),
    ),
    Experiment(
        "gradient-rewards/fig-3",
        "Fig. 3: test accuracy of each client, β = 2",
        _PARTITIONS,
        _SUBSTITUTE,
        watch,
        _drawn("accuracy", "test accuracy"),
        (Claim("accuracies differ least for UNI, more for POW, most for CLA", _spreads_grow),),
    ),
    Experiment(
        "gradient-rewards/fig-4",
        "Fig. 4: importance of each client",
        _PARTITIONS,
        _SUBSTITUTE,
        watch,
        _drawn("importance", "r"),
        (
            Claim(
                "with POW the last client ends with more importance than the first",
                _first_below_last("importance", ("POW",)),
            ),
            Claim("with CLA too, though it begins with less", _first_below_last("importance", ("CLA",))),
        ),
    ),
    Experiment(
        "gradient-rewards/fig-5",
        "Fig. 5: distance of each client's reward from the aggregate",
        _PARTITIONS,
        _SUBSTITUTE,
        watch,
        _drawn("reward", "l2 distance"),
        (
            Claim(
                "the first client's reward is further from the aggregate than the last's (POW, CLA)",
                _first_below_last("reward", ("POW", "CLA"), sign=-1),
            ),
        ),
    ),
    Experiment(
        "gradient-rewards/fig-6",
        "Fig. 6: distance of each client's last layer from the server's",
        _PARTITIONS,
        _SUBSTITUTE,
        watch,
        _drawn("last_layer", "l2 distance"),
        (
            Claim(
                "the first client's last layer ends further from the server's than the last's (POW, CLA)",
                _first_below_last("last_layer", ("POW", "CLA"), sign=-1),
            ),
        ),
    ),
    Experiment(
        "gradient-rewards/fig-7",
        "Fig. 7: training loss of each client on all clients' samples, by degree of altruism, CLA",
        {
            "smoke": _altruism(SMOKE, 1.0, 2.0),
            "digits": _altruism(DIGITS, 1.0, 1.2, 1.5, 2.0),
            "small": _altruism(SMALL, 1.0, 1.2, 1.5, 2.0),
            "paper": _altruism(MNIST, 1.0, 1.2, 1.5, 2.0),
        },
        _SUBSTITUTE,
        watch,
        _drawn("loss", "training loss"),
        (
            Claim("the clients' mean training loss falls with every step of β", _losses_fall),
            Claim("the first client gains most from altruism", _first_gains_most),
        ),
    ),
)
"""What this module runs; figures 3 to 6 share one measurement."""
