"""Tables 1 to 3 of Xu et al. 2021: accuracy, fairness and time of gradient rewards and their baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import bars, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Printed, Scale
from comity.protocols.gradient_rewards.report import pearson_percent
from comity.protocols.gradient_rewards.studies.alone import added
from comity.protocols.gradient_rewards.studies.baselines.rules import baselines
from comity.protocols.gradient_rewards.studies.consortium import Consortium
from comity.protocols.gradient_rewards.studies.federation import Federation
from comity.protocols.gradient_rewards.studies.sizes import CIFAR, DIGITS, MNIST, MR, SMALL, SMOKE, SST, each
from comity.session.events import Event
from comity.simulation.in_process import simulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """What the tables compare.

    Attributes:
        columns: Each column's consortium; β is put in.
        betas: β of the protocol's rows.
        names: Rivals to run.
    """

    columns: tuple[tuple[str, Consortium], ...]
    betas: tuple[float, ...] = (1.0, 1.2, 1.5, 2.0)
    names: tuple[str, ...] = ("FedAvg", "q-FFL", "CFFL", "ECI", "DW", "RR", "EU")

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return tuple(dict.fromkeys(name for _, column in self.columns for name in column.measured_on))


def compare(settings: Comparison, context: ExperimentContext) -> Metrics:
    """Runs every row on every column.

    Returns:
        By column and row: `mean` and `highest` test accuracy and `fairness` in percent, `overhead_s`, and
        `overhead_share` of the training time.
    """
    return {"columns": {name: _column(name, each, settings, context) for name, each in settings.columns}}


def _column(name: str, consortium: Consortium, settings: Comparison, context: ExperimentContext) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    script = consortium.script(context.datasets)
    federation = Federation(script)
    spent: list[float] = []
    finals: dict[str, tuple[list[float], float]] = {}
    for baseline, rule in baselines(federation.terms, consortium.seed).items():
        if baseline in settings.names:
            context.say(f"  {name}: {baseline}")
            record = federation.run(rule, say=context.say)
            spent.append(record.training_s)
            finals[baseline] = record.accuracies[-1], record.payments_s
    alone: list[float] = []
    for beta in settings.betas:
        context.say(f"  {name}: gradient rewards, β = {beta:g}")
        with_beta = replace(consortium, beta=beta).script(context.datasets)
        seconds: list[float] = []

        def observe(event: Event, seconds: list[float] = seconds) -> None:
            if event.kind == "round-finished":
                value: Any = event.fields["server_seconds"]
                seconds.append(value)

        result, _ = simulate(with_beta, observe)
        metrics: Mapping[str, Any] = result.metrics if alone else added(with_beta, result.metrics)
        alone = alone or metrics["score_alone"]
        finals[f"β = {beta:g}"] = metrics["score_together"], sum(seconds)
    rows["standalone"] = _row(alone, alone, 0.0, 1.0)
    training = fmean(spent) if spent else 1.0
    return rows | {row: _row(alone, final, cost, training) for row, (final, cost) in finals.items()}


def _row(alone: Sequence[float], final: Sequence[float], overhead_s: float, training_s: float) -> dict[str, Any]:
    return {
        "mean": 100 * fmean(final),
        "highest": 100 * max(final),
        "fairness": pearson_percent(alone, final),
        "overhead_s": overhead_s,
        "overhead_share": overhead_s / training_s,
    }


def _ours(column: Mapping[str, Any], what: str) -> list[float]:
    found = [row[what] for name, row in column.items() if name.startswith("β")]
    return [value for value in found if value is not None]


def _uneven(metrics: Metrics) -> list[Mapping[str, Any]]:
    """Columns in which clients differ."""
    return [column for name, column in metrics["columns"].items() if not name.endswith("UNI")]


def _above_fedavg(metrics: Metrics) -> bool:
    return all(max(_ours(each, "mean")) >= each["FedAvg"]["mean"] for each in metrics["columns"].values())


def _above_alone(metrics: Metrics) -> bool:
    return all(max(_ours(each, "mean")) > each["standalone"]["mean"] for each in metrics["columns"].values())


def _best_in_classes(metrics: Metrics) -> bool | None:
    columns = [column for name, column in metrics["columns"].items() if name.endswith("CLA")]
    best = [max(row["mean"] for name, row in each.items() if not name.startswith("β")) for each in columns]
    return (
        all(max(_ours(each, "mean")) > baseline for each, baseline in zip(columns, best, strict=True))
        if columns
        else None
    )


def _last_unharmed(metrics: Metrics) -> bool:
    return all(max(_ours(each, "highest")) >= each["standalone"]["highest"] - 1 for each in _uneven(metrics))


def _fair(metrics: Metrics) -> bool | None:
    values = [value for each in _uneven(metrics) for value in _ours(each, "fairness")]
    return min(values) >= 80 if values else None


def _fairer_than_fedavg(metrics: Metrics) -> bool | None:
    pairs = [(each["FedAvg"]["fairness"], _ours(each, "fairness")) for each in _uneven(metrics)]
    # Models that are all alike have no fairness.
    known = [(theirs if theirs is not None else 0.0, ours) for theirs, ours in pairs if ours]
    return all(max(ours) > theirs for theirs, ours in known) if known else None


def _cheap(metrics: Metrics) -> bool:
    return max(share for each in metrics["columns"].values() for share in _ours(each, "overhead_share")) <= 0.4


def _cheaper(metrics: Metrics) -> bool:
    return all(
        max(_ours(each, "overhead_s")) < min(each["ECI"]["overhead_s"], each["CFFL"]["overhead_s"])
        for each in metrics["columns"].values()
    )


def _drawn(what: str, label: str, top: float | None = None) -> Any:
    def draw(metrics: Metrics, figure: Figure) -> None:
        columns = metrics["columns"]
        (axes,) = panels(figure, [""])
        bars(
            axes, {name: {row: each[what] for row, each in column.items()} for name, column in columns.items()}, y=label
        )
        if top is None:
            axes.set_yscale("symlog", linthresh=0.01)
        else:
            axes.set_ylim(min(0.0, axes.get_ylim()[0]), top)

    return draw


def _printed(what: str, table: Mapping[str, Mapping[str, float]]) -> tuple[Printed, ...]:
    return tuple(
        Printed(f"{column}, {row}", ("columns", column, row, what), value)
        for column, rows in table.items()
        for row, value in rows.items()
    )


_ROWS = ("standalone", "FedAvg", "q-FFL", "CFFL", "ECI", "DW", "RR", "EU", "β = 1", "β = 1.2", "β = 1.5", "β = 2")


def _by_row(values: Mapping[str, Sequence[float]], rows: Sequence[str] = _ROWS) -> dict[str, dict[str, float]]:
    return {column: dict(zip(rows, each, strict=True)) for column, each in values.items()}


_TABLE_1 = _by_row(
    {
        "MNIST UNI": (91, 93, 85, 90, 94, 93, 94, 94, 96, 94, 97, 96),
        "MNIST POW": (88, 92, 27, 85, 92, 92, 95, 94, 94, 95, 95, 95),
        "MNIST CLA": (53, 53, 44, 34, 53, 53, 64, 54, 74, 75, 75, 73),
        "CIFAR-10 UNI": (46, 48, 41, 39, 49, 48, 47, 49, 61, 61, 61, 62),
        "CIFAR-10 POW": (43, 47, 36, 35, 47, 47, 49, 49, 60, 60, 59, 61),
        "CIFAR-10 CLA": (31, 32, 22, 22, 31, 32, 26, 32, 35, 35, 35, 36),
        "MR POW": (47, 51, 12, 44, 56, 51, 63, 54, 62, 62, 62, 62),
    }
)
_TABLE_2 = _by_row(
    {
        "MNIST UNI": (-45.60, -44.73, 83.57, 85.26, 89.15, 83.77, 84.25, 94.03, 94.75, 96.34, 94.66),
        "MNIST POW": (55.24, 39.00, 91.80, 99.83, 98.93, 71.17, 98.25, 95.74, 97.28, 86.99, 91.20),
        "MNIST CLA": (24.12, 22.38, 81.24, 99.98, 65.34, -26.75, 99.82, 94.54, 96.23, 95.37, 95.38),
        "CIFAR-10 POW": (97.48, 51.33, 72.55, 79.50, 91.97, 0.70, 94.24, 98.78, 91.59, 93.78, 88.78),
        "MR POW": (48.68, 56.43, 96.85, 97.69, 99.20, 44.16, 97.58, 96.01, 96.12, 95.32, 92.22),
    },
    _ROWS[1:],
)
_COST_ROWS = ("FedAvg", "q-FFL", "CFFL", "ECI", "DW", "RR", "EU", "β = 1")
_TABLE_3 = _by_row(
    {
        "MNIST UNI": (1e-2, 5e-2, 0.3, 141, 9e-3, 9e-3, 9e-3, 5e-2),
        "MR POW": (1e-4, 8e-3, 0.2, 4e-2, 1e-5, 5e-4, 5e-4, 8e-3),
    },
    _COST_ROWS,
)

_PAPER = Comparison(
    (
        *((f"MNIST {partition}", each(MNIST, partition)) for partition in ("UNI", "POW", "CLA")),
        *(
            (f"MNIST-20 {partition}", replace(each(MNIST, partition), clients=20))
            for partition in ("UNI", "POW", "CLA")
        ),
        *((f"CIFAR-10 {partition}", each(CIFAR, partition)) for partition in ("UNI", "POW", "CLA")),
        ("MR POW", each(MR, "POW")),
        ("SST POW", each(SST, "POW")),
    )
)
_SCALES: dict[Scale, Comparison] = {
    "smoke": Comparison((("digits CLA", each(SMOKE, "CLA")),), betas=(1.0,)),
    "digits": Comparison(
        tuple((f"digits {partition}", each(DIGITS, partition)) for partition in ("UNI", "POW", "CLA")),
        betas=(1.0, 2.0),
    ),
    "small": Comparison(
        tuple((f"MNIST {partition}", each(SMALL, partition)) for partition in ("UNI", "POW", "CLA")),
        betas=(1.0, 2.0),
    ),
    "paper": _PAPER,
}
_STAND_INS = {f"MNIST {partition}": f"digits {partition}" for partition in ("UNI", "POW", "CLA")}
_SUBSTITUTE = (
    "in place of MNIST five clients with 60 handwritten digits (scikit-learn) each, on average, and mlp for cnn-mnist; "
    "30 rounds; no CIFAR-10, MR and SST; beta = 1 and 2"
)

EXPERIMENTS = (
    Experiment(
        "gradient-rewards/table-1",
        "Table 1: mean and highest test accuracy of the clients, percent",
        _SCALES,
        _SUBSTITUTE,
        compare,
        _drawn("mean", "mean accuracy, %", 100),
        (
            Claim("gradient rewards reach at least FedAvg's mean accuracy in every column", _above_fedavg),
            Claim("collaborating beats standing alone in every column, on average over clients", _above_alone),
            Claim(
                "with unequal classes (CLA) no baseline reaches the mean accuracy of gradient rewards", _best_in_classes
            ),
            Claim(
                "the best client does not lose: highest accuracy at least that of the best alone, less 1",
                _last_unharmed,
            ),
        ),
        _printed("mean", _TABLE_1),
        _STAND_INS,
    ),
    Experiment(
        "gradient-rewards/table-2",
        "Table 2: fairness, 100 × Pearson correlation of standalone and final accuracies",
        _SCALES,
        _SUBSTITUTE,
        compare,
        _drawn("fairness", "fairness", 100),
        (
            Claim("fairness is above 80 wherever clients differ (POW, CLA), for every β", _fair),
            Claim("fairness is above FedAvg's wherever clients differ", _fairer_than_fedavg),
        ),
        _printed("fairness", _TABLE_2),
        _STAND_INS,
    ),
    Experiment(
        "gradient-rewards/table-3",
        "Table 3: time of the rewards, as a share of the training time",
        _SCALES,
        _SUBSTITUTE,
        compare,
        _drawn("overhead_share", "time over training time"),
        (
            Claim("gradient rewards take at most 0.4 of the training time", _cheap),
            Claim("gradient rewards take less time than ECI and CFFL", _cheaper),
        ),
        _printed("overhead_share", _TABLE_3),
        _STAND_INS,
    ),
)
"""What this module runs; the three share one measurement."""
