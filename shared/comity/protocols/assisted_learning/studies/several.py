"""Does a second provider add anything? A learner with one, with the other, and with both, in two kinds of shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]

from comity.experiments.charts import bars, legend_below, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocols.assisted_learning.studies.baselines import added
from comity.simulation.in_process import simulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLASSES = 10
_LOW, _HIGH = range(5), range(5, _CLASSES)
_LEARNER = {0: 10} | dict.fromkeys(range(1, _CLASSES), 3)
_SHARES: Mapping[str, Mapping[str, Mapping[int, int]]] = {
    "something of everything": {
        "hospital": dict.fromkeys(_LOW, 8) | dict.fromkeys(_HIGH, 2),
        "lab": dict.fromkeys(_LOW, 2) | dict.fromkeys(_HIGH, 8),
    },
    "each lacks the other's classes": {"hospital": dict.fromkeys(_LOW, 10), "lab": dict.fromkeys(_HIGH, 10)},
}
"""How many images of each class a provider has."""
_WAYS: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "with the hospital": (("hospital",), {}),
    "with the lab": (("lab",), {}),
    "with both, listed": (("hospital", "lab"), {"order": "listed"}),
    "with both, rotating, one trains": (("hospital", "lab"), {"order": "rotating", "trainers": 1}),
}
_LEFT_OUT = 2
"""Points within which both together are as good as the learner alone."""

Drawn = dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def learner(seed: int) -> Drawn:
    """Ten images of one digit, and three of each other; a quarter of all digits to test on."""
    return _drawn(seed, _LEARNER, first=0)


def mixed_hospital(seed: int) -> Drawn:
    """Something of everything, most of it low digits."""
    return _drawn(seed, _SHARES["something of everything"]["hospital"], first=10)


def mixed_lab(seed: int) -> Drawn:
    """Something of everything, most of it high digits."""
    return _drawn(seed, _SHARES["something of everything"]["lab"], first=20)


def low_hospital(seed: int) -> Drawn:
    """Low digits alone."""
    return _drawn(seed, _SHARES["each lacks the other's classes"]["hospital"], first=10)


def high_lab(seed: int) -> Drawn:
    """High digits alone."""
    return _drawn(seed, _SHARES["each lacks the other's classes"]["lab"], first=20)


_SOURCES = {
    ("something of everything", "hospital"): mixed_hospital,
    ("something of everything", "lab"): mixed_lab,
    ("each lacks the other's classes", "hospital"): low_hospital,
    ("each lacks the other's classes", "lab"): high_lab,
}


def _drawn(seed: int, counts: Mapping[int, int], *, first: int) -> Drawn:
    """Images from one place on in the order of each class, which a seed decides, so that no two parties have the same."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    inputs = (digits.images[order] / 16).astype(np.float32)[:, None]
    labels = digits.target[order].astype(np.int64)
    tested = len(labels) // 4
    of_class = {each: tested + np.flatnonzero(labels[tested:] == each) for each in range(_CLASSES)}
    kept = np.sort(np.concatenate([of_class[each][first : first + count] for each, count in counts.items()]))
    return {"train": (inputs[kept], labels[kept]), "test": (inputs[:tested], labels[:tested])}


@dataclass(frozen=True)
class Several:
    """Sessions with one provider and with two.

    Attributes:
        seeds: Each way is run with these.
        rounds: Of a session.
        iterations: T + T'.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    rounds: int = 10
    iterations: int = 100

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("scikit-learn's digits",)


def script(settings: Several, shares: str, providers: Sequence[str], terms: Mapping[str, Any], seed: int) -> Script:
    """The session of a learner with some of the providers."""
    sources = {"clinic": learner} | {name: _SOURCES[shares, name] for name in providers}
    party = {
        name: {
            "role": "learner" if name == "clinic" else "provider",
            "secret": f"{name}-{seed}",
            "privacy": {"preset": "public"},
            "data": {"source": f"python:{__name__}:{source.__name__}", "seed": seed},
        }
        for name, source in sources.items()
    }
    session = {
        "protocol": "assisted_learning",
        "id": "several",
        "acceptors": [*providers],
        "rounds": settings.rounds,
        "seed": seed,
        "model": {"name": "mlp", "options": {"hidden": 64}},
        "terms": {
            "optimizer": "adam",
            "learning_rate": 0.003,
            "batch_size": 32,
            "evaluation_batch_size": 32,
            "iterations": settings.iterations,
            "sampling_period": 5,
            "objective": "sum",
            **terms,
        },
    }
    return validated(Script, {"session": session, "party": party}, "the experiment's script")


def measure(settings: Several, context: ExperimentContext) -> Metrics:
    """Test accuracies in percent, by shares and way: by seed, and the mean."""
    found: dict[str, dict[str, list[float]]] = {}
    for shares in _SHARES:
        for seed in settings.seeds:
            context.say(f"  {shares}, seed {seed}")
            for way, (providers, terms) in _WAYS.items():
                parsed = script(settings, shares, providers, terms, seed)
                metrics: Any = simulate(parsed)[0].metrics
                values = {way: metrics["assisted"]}
                if way == "with both, listed":
                    # As many iterations as all three make.
                    metrics = added(parsed, metrics)
                    values |= {"learner alone": metrics["learner_alone"], "data pooled": metrics["pooled"]}
                for name, value in values.items():
                    found.setdefault(shares, {}).setdefault(name, []).append(100 * value)
    order = ("learner alone", *_WAYS, "data pooled")
    return {
        shares: {name: {"by_seed": ways[name], "mean": fmean(ways[name])} for name in order}
        for shares, ways in found.items()
    }


def draw(metrics: Metrics, figure: Figure) -> None:
    """The means of each way, in either kind of shares."""
    (axes,) = panels(figure, [""])
    means = {shares: {name: row["mean"] for name, row in ways.items()} for shares, ways in metrics.items()}
    bars(axes, means, y="test accuracy, %", legend=False)
    legend_below(figure)


def _second_adds(metrics: Metrics) -> bool:
    row = metrics["something of everything"]
    one = max(row[name]["mean"] for name in ("with the hospital", "with the lab"))
    return all(row[name]["mean"] > one for name in _WAYS if name.startswith("with both"))


def _both_add_nothing(metrics: Metrics) -> bool:
    row = metrics["each lacks the other's classes"]
    alone = row["learner alone"]["mean"]
    return all(abs(row[name]["mean"] - alone) <= _LEFT_OUT for name in _WAYS if name.startswith("with both"))


EXPERIMENTS = (
    Experiment(
        "assisted-learning/several",
        "Several providers: what a second one adds, in two kinds of shares",
        {"smoke": Several((0,), 1, 20), "digits": Several(), "paper": Several()},
        "not in the paper",
        measure,
        draw,
        (
            Claim("where each provider has something of everything, both help more than either", _second_adds),
            Claim("where each lacks the other's classes, both add nothing (within 2 points)", _both_add_nothing),
        ),
    ),
)
