"""The demo over several seeds: whether who does harm loses power in each, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import bars, curves, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.node.sessions.script import parse_script
from comity.protocols.nash_bargaining.studies.alone import added
from comity.protocols.nash_bargaining.studies.demo import script
from comity.simulation.in_process import simulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_HARMFUL = 0.02
_BETTER = 0.01
_NO_WORSE = 0.02
"""By how much equal powers may be better in the mean, where all providers are honest."""
_KEPT = (
    "accuracy_alone",
    "accuracy_equal",
    "accuracy_bargained",
    "powers",
    "powers_by_round",
    "worth",
    "rounds_helped",
)
_SHOWN = (
    ("alone", "accuracy_alone"),
    ("equal powers", "accuracy_equal"),
    ("bargained", "accuracy_bargained"),
)


@dataclass(frozen=True)
class Seeds:
    """Sessions of the demo.

    Attributes:
        seeds: One session each.
        public: See the demo.
        honest: See the demo.
        rounds: Rounds of a session; None for the demo's own.
    """

    seeds: tuple[int, ...] = tuple(range(10))
    public: bool = False
    honest: bool = False
    rounds: int | None = None

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return ("scikit-learn's digits",)


def measure(settings: Seeds, context: ExperimentContext) -> Metrics:
    """What the sessions came to, by seed, and means over them."""
    by_seed: dict[str, dict[str, Any]] = {}
    for seed in settings.seeds:
        parsed = parse_script(script(seed, public=settings.public, honest=settings.honest))
        if settings.rounds is not None:
            session = parsed.session.model_copy(update={"rounds": settings.rounds})
            parsed = parsed.model_copy(update={"session": session})
        found: Any = added(parsed, simulate(parsed)[0].metrics)
        by_seed[str(seed)] = {name: found[name] for name in _KEPT}
        accuracies = ", ".join(f"{label} {found[name]:.3f}" for label, name in _SHOWN)
        powers = ", ".join(f"{party} {power:.4f}" for party, power in found["powers"].items())
        context.say(f"seed {seed}: {accuracies}; powers {powers}")
    means = {label: fmean(each[name] for each in by_seed.values()) for label, name in _SHOWN}
    return {"by_seed": by_seed, "means": means}


def draw(metrics: Metrics, figure: Figure) -> None:
    """Accuracies by seed, and the powers in the mean of the seeds, by round."""
    runs = metrics["by_seed"]
    accuracies, powers = panels(figure, ["test accuracy, by seed", "bargaining power, mean over seeds"])
    bars(accuracies, {seed: {label: run[name] for label, name in _SHOWN} for seed, run in runs.items()})
    accuracies.set_ylim(0.5, 1.0)
    parties = list(next(iter(runs.values()))["powers"])
    rounds = zip(*(run["powers_by_round"] for run in runs.values()), strict=True)
    means = [[fmean(each) for each in zip(*round, strict=True)] for round in rounds]
    curves(powers, {party: [each[at] for each in means] for at, party in enumerate(parties)})


def _in_each(holds: Callable[[Mapping[str, Any]], bool]) -> Callable[[Metrics], bool]:
    return lambda metrics: all(holds(run) for run in metrics["by_seed"].values())


def _loses_power(run: Mapping[str, Any]) -> bool:
    powers = dict(run["powers"])
    harmful = powers.pop("harmful")
    return bool(harmful < min(powers.values()) and harmful <= _MOST_HARMFUL)


_CLAIMS = (
    Claim("in each seed, who does harm ends with the least power, at most .02", _in_each(_loses_power)),
    Claim(
        "in each seed, bargained is .01 or more above equal powers",
        _in_each(lambda run: bool(run["accuracy_bargained"] >= run["accuracy_equal"] + _BETTER)),
    ),
    Claim(
        "in each seed, bargained is .01 or more above the learner alone",
        _in_each(lambda run: bool(run["accuracy_bargained"] >= run["accuracy_alone"] + _BETTER)),
    ),
)
_CONTROL = (
    Claim(
        "in the mean of the seeds, bargained is at most .02 below equal powers",
        lambda metrics: bool(metrics["means"]["bargained"] >= metrics["means"]["equal powers"] - _NO_WORSE),
    ),
)


def _experiment(
    name: str, shows: str, claims: tuple[Claim, ...], *, public: bool = False, honest: bool = False
) -> Experiment[Seeds]:
    whole = Seeds(public=public, honest=honest)
    short = Seeds((0,), public, honest, rounds=3)
    return Experiment(
        f"nash-bargaining/{name}",
        shows,
        {"smoke": short, "digits": whole, "paper": whole},
        "not in the paper",
        measure,
        draw,
        claims,
    )


EXPERIMENTS = (
    _experiment("demo", "The demo over ten seeds: guarded providers, of whom one does harm", _CLAIMS),
    _experiment("demo-public", "The same where nothing is held back, and every step crosses", _CLAIMS, public=True),
    _experiment("demo-honest", "The control: the third provider is honest, too", _CONTROL, honest=True),
)
"""What this module runs."""
