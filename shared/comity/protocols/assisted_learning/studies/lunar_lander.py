"""Figures 11 and 12 of Chen et al. 2023 (section 4.4): where the landers of figure 10 fly (extra `box2d`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from comity.environments import Draws, EnvironmentSet, play
from comity.experiments.charts import legend_below, legend_under, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics, Scale
from comity.protocols.assisted_learning.studies.policies import (
    LANDER,
    LANDER_SHORT,
    LANDER_TINY,
    Players,
    learn,
    task_of,
)
from comity.simulation.in_process import parties
from comity.tensors import State
from comity.training import PolicyGradient

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLIERS = ("AssistPG", "Learner-PG")
_PAD = 0.2
"""Half the width of the pad, in observations' units; it lies at (0, 0)."""
_REST = 0.1
"""Speed below which a lander that stands on both legs has landed."""
_EVERY = 4
"""Every so many steps a trace is kept."""


@dataclass(frozen=True)
class Flights:
    """Flights of trained landers.

    Attributes:
        players: How they are trained; the first seed's fly.
        powers: Engine powers to fly with after each round.
        drawn: Powers that are drawn for each test, after the last round.
        map: Decides the ground, and the push that every flight begins with.
    """

    players: Players
    powers: tuple[float, ...] = (10.0, 20.0, 30.0, 40.0)
    drawn: int = 4
    map: int = 0

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The game."""
        return self.players.measured_on


def fly(settings: Flights, context: ExperimentContext) -> Metrics:
    """Trains, and flies on one map with one luck.

    Returns:
        By algorithm: `by_round`, for each round and engine power, and `tests`, by test for each power that was drawn, a
        flight: `power`, `trace` of positions, `reward`, and whether it `landed` at rest on the pad.
    """
    found = context.once(learn, settings.players)
    script = settings.players.script(settings.players.seeds[0])
    (learner,), _ = parties(script)
    task, environments = task_of(script), learner.holdings.environments
    drawn = {name: [float(power) for power in powers[: settings.drawn]] for name, powers in environments.tests.items()}
    flights: dict[str, Any] = {}
    for name in _FLIERS:
        policies = found[name][0].policies
        flights[name] = {
            "by_round": [_flown(task, environments, policy, settings.powers, settings.map) for policy in policies],
            "tests": {
                test: _flown(task, environments, policies[-1], powers, settings.map) for test, powers in drawn.items()
            },
        }
    return flights


def _flown(
    task: PolicyGradient, environments: EnvironmentSet, policy: State, powers: Sequence[float], map: int
) -> list[dict[str, Any]]:
    draws = Draws.make(environments.environment, np.asarray(powers, dtype=np.float64), map)
    # The same ground, push and luck for all.
    draws = replace(
        draws, starts=np.full(len(powers), draws.starts[0]), noise=np.repeat(draws.noise[:, :1], len(powers), axis=1)
    )
    episodes = play(environments.environment, draws, task.policy(policy), record=True)
    flights = []
    for at, power in enumerate(powers):
        seen = episodes.observations[episodes.episode == at]
        x, _, right, up, _, _, *legs = seen[-1]
        resting = all(legs) and np.hypot(right, up) < _REST
        kept = np.concatenate([seen[::_EVERY, :2], seen[-1:, :2]])
        flights.append(
            {
                "power": power,
                "trace": kept.astype(float).round(3).tolist(),
                "reward": float(episodes.returns[at]),
                "landed": bool(resting and abs(x) <= _PAD),
            }
        )
    return flights


def _draw_rounds(metrics: Metrics, figure: Figure) -> None:
    powers = [flight["power"] for flight in metrics[_FLIERS[0]]["by_round"][0]]
    titles = [f"{name}, power {power:g}" for name in _FLIERS for power in powers]
    places = iter(panels(figure, titles, rows=len(_FLIERS)))
    for name in _FLIERS:
        for at in range(len(powers)):
            lines = {f"round {round}": each[at] for round, each in enumerate(metrics[name]["by_round"], start=1)}
            _traces(next(places), lines)
    legend_below(figure)


def _draw_tests(metrics: Metrics, figure: Figure) -> None:
    names = {"test_1": "Test I", "test_2": "Test II"}
    places = iter(panels(figure, [f"{name}, {test}" for name in _FLIERS for test in names.values()], rows=2))
    for name in _FLIERS:
        for test in names:
            axes = next(places)
            _traces(axes, {f"power {each['power']:.1f}": each for each in metrics[name]["tests"][test]})
            legend_under(axes)


def _traces(axes: Axes, flights: dict[str, dict[str, Any]]) -> None:
    axes.plot((-_PAD, _PAD), (0, 0), color="black", linewidth=3)
    for label, flight in flights.items():
        (line,) = axes.plot(*zip(*flight["trace"], strict=True), linewidth=1, label=label)
        axes.plot(*flight["trace"][-1], "o" if flight["landed"] else "x", markersize=4, color=line.get_color())
    first = axes.get_subplotspec().is_first_col()  # type: ignore[union-attr]
    axes.set(xlim=(-1.05, 1.05), ylim=(-0.25, 1.7), ylabel="height" if first else "")


def _lands(name: str, *, at: tuple[float, ...], wanted: bool) -> Any:
    """Whether a flier lands after the last round with every one of these powers, or with none."""

    def holds(metrics: Metrics) -> bool | None:
        landed = [each["landed"] for each in metrics[name]["by_round"][-1] if each["power"] in at]
        return all(each is wanted for each in landed) if landed else None

    return holds


def _neither_lands_weakly(metrics: Metrics) -> bool:
    return all(_lands(name, at=(10.0,), wanted=False)(metrics) for name in _FLIERS)


def _better_in_tests(metrics: Metrics) -> bool:
    ours, theirs = (metrics[name]["tests"] for name in _FLIERS)
    pairs = [pair for test in ours for pair in zip(ours[test], theirs[test], strict=True)]
    return all(our["reward"] > their["reward"] for our, their in pairs)


_SCALES: dict[Scale, Flights] = {
    "smoke": Flights(LANDER_TINY, (10.0, 40.0), drawn=1),
    "digits": Flights(LANDER_SHORT),
    "paper": Flights(replace(LANDER, seeds=(0, 1, 2))),
}
_SUBSTITUTE = (
    "landers of Fig. 10 at this scale, of one seed: evaluations of 5 episodes a game for 20; Adam and normalized returns, "
    "which the paper does not name"
)
_STRONG = (20.0, 30.0, 40.0)

EXPERIMENTS = (
    Experiment(
        "assisted-learning/fig-11",
        "Fig. 11: landing traces after each round, engine power 10, 20, 30 and 40 (extra box2d)",
        _SCALES,
        _SUBSTITUTE,
        fly,
        _draw_rounds,
        (
            Claim(
                "after the last round AssistPG lands on the pad with power 20, 30 and 40",
                _lands("AssistPG", at=_STRONG, wanted=True),
            ),
            Claim(
                "Learner-PG lands with none of the four",
                _lands("Learner-PG", at=(10.0, *_STRONG), wanted=False),
            ),
            Claim("with power 10 neither lands", _neither_lands_weakly),
        ),
    ),
    Experiment(
        "assisted-learning/fig-12",
        "Fig. 12: landing traces in Test I and Test II after the last round (extra box2d)",
        _SCALES,
        _SUBSTITUTE,
        fly,
        _draw_tests,
        (Claim("AssistPG's reward is above Learner-PG's in each of the eight flights", _better_in_tests),),
    ),
)
"""What this module runs; both share one training with figure 10."""
