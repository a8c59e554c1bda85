"""Figures 9 and 10 of Chen et al. 2023 (section 4.3): AssistPG beside PG and Learner-PG in CartPole and LunarLander."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from comity.blobs.blob_store import of_node
from comity.environments import EnvironmentSet
from comity.errors import UnknownBlob
from comity.experiments.charts import curves, legend_below, panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.session.events import Event
from comity.simulation.in_process import parties, simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.tensors import Layout, State
from comity.training import PolicyGradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Game = Literal["CartPole-v1", "LunarLander-v3"]
ALGORITHMS = ("AssistPG", "PG", "Learner-PG")
_SESSION = "reproduction"


def _uniform(low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"name": "uniform", "low": low, "high": high, **more}


_GAMES: Mapping[Game, Mapping[str, Any]] = MappingProxyType(
    {
        "CartPole-v1": {
            "parameter": "length",
            "learner": _uniform(4, 5),
            "provider": _uniform(0, 1),
            # The paper names no second distribution for the remaining fifth.
            "tests": {"test_1": _uniform(0, 5), "test_2": _uniform(0, 1, share=0.8, otherwise=_uniform(1, 5))},
        },
        "LunarLander-v3": {
            "parameter": "main_engine_power",
            "learner": _uniform(10, 15),
            "provider": _uniform(35, 40),
            "tests": {"test_1": _uniform(10, 40), "test_2": {"name": "beta", "a": 5, "b": 1, "low": 10, "high": 40}},
        },
    }
)
"""By what games differ, and where each party's and the tests' come from."""


@dataclass(frozen=True)
class Players:
    """A learner and a provider with games.

    Attributes:
        game: What they play.
        hidden: Hidden units of the policy.
        games: Environments of each.
        rounds: R.
        optimizer: Of all; the paper names none.
        baseline: What is taken off a return in training; the paper writes the return itself.
        iterations: T + T'.
        period: I.
        learning_rate: η.
        batch_size: Episodes of an update.
        evaluations: Episodes of each game in an evaluation.
        test_games: Environments of each test.
        seeds: Of weights and episodes; means are taken over them.
    """

    game: Game
    hidden: int
    games: int
    rounds: int
    optimizer: str = "sgd"
    baseline: str = "mean"
    iterations: int = 20
    period: int = 4
    learning_rate: float = 5e-3
    batch_size: int = 32
    evaluations: int = 20
    test_games: int = 200
    seeds: tuple[int, ...] = (0,)

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The games."""
        return (self.game,)

    def script(self, seed: int) -> Script:
        """The session as a script; a seed changes weights and episodes, not the games."""
        where = _GAMES[self.game]
        source = {"source": f"gymnasium:{self.game}", "parameter": where["parameter"], "games": self.games}
        party: dict[str, Any] = {
            role: {"role": role, "secret": f"{role}-{seed}", "data": source | {"values": where[role]}}
            for role in ("learner", "provider")
        }
        party["learner"]["data"] |= {"tests": where["tests"], "test_games": self.test_games}
        session = {
            "protocol": "assisted_learning",
            "id": _SESSION,
            "acceptors": ["provider"],
            "rounds": self.rounds,
            "seed": seed,
            "model": {"name": "policy-mlp", "options": {"hidden": self.hidden}},
            "terms": {
                "optimizer": self.optimizer,
                "learning_rate": self.learning_rate,
                "batch_size": self.batch_size,
                "iterations": self.iterations,
                "sampling_period": self.period,
                "evaluation_batch_size": 500,
                "policy_gradient": {"baseline": self.baseline, "evaluation_episodes": self.evaluations},
            },
        }
        return validated(Script, {"session": session, "party": party}, "the experiment's script")


@dataclass
class Progress:
    """An algorithm, round by round.

    Attributes:
        training: Mean discounted return in evaluations of the games that it trains on.
        tests: Mean cumulative reward in each test.
        policies: θ^r.
    """

    training: list[float] = field(default_factory=list)
    tests: dict[str, list[float]] = field(default_factory=dict)
    policies: list[State] = field(default_factory=list)

    def note(self, training: float, tests: Mapping[str, float], policy: State) -> None:
        """Adds a round."""
        self.training.append(training)
        self.policies.append(policy)
        for name, mean in tests.items():
            self.tests.setdefault(name, []).append(mean)


def learn(players: Players, context: ExperimentContext) -> Mapping[str, Any]:
    """Trains by each algorithm with each seed: by name, `Progress` of each."""
    found: dict[str, list[Progress]] = {name: [] for name in ALGORITHMS}
    for seed in players.seeds:
        script = players.script(seed)
        context.say(f"  {players.game}, AssistPG, seed {seed}")
        found["AssistPG"].append(_session(script))
        (learner,), (provider,) = parties(script)
        own, other = learner.holdings.environments, provider.holdings.environments
        everything = replace(own, parameters=np.concatenate([own.parameters, other.parameters]))
        for name, environments in {"PG": everything, "Learner-PG": own}.items():
            context.say(f"  {players.game}, {name}, seed {seed}")
            found[name].append(_alone(script, environments))
    return found


def _session(script: Script) -> Progress:
    """AssistPG; the policies are taken from the files that the learner's node keeps between rounds."""
    progress = Progress()
    with TemporaryDirectory() as folder:
        state = Path(folder, "learner")

        def observe(event: Event) -> None:
            if event.kind == "round-finished":
                fields: Any = event.fields
                with closing(SqlStore(store_url(state), read_only=True)) as store:
                    policy = of_node(state, store.small_blobs).find(_SESSION, bytes.fromhex(fields["model"]))
                if policy is None:
                    raise UnknownBlob("the round's policy is not kept", received=fields["model"])
                kept = {name: tensor.clone() for name, tensor in Layout.unpack(policy).items()}
                progress.note(fields["global_return"], fields["test_returns"], kept)

        simulate(script, observe, state=Path(folder))
    return progress


def task_of(script: Script, environments: EnvironmentSet | None = None) -> PolicyGradient:
    """The learner's task, with its own games or with others.

    Raises:
        TypeError: The learner has samples.
    """
    (learner,), _ = parties(script)
    contract, _ = draft_contract(script, learner, _SESSION)
    task = learner.task(contract, environments=environments)
    if not isinstance(task, PolicyGradient):
        raise TypeError("the algorithms of AssistPG play")
    return task


def _alone(script: Script, environments: EnvironmentSet) -> Progress:
    """One training that goes on; a round is as many iterations as learner and provider have together."""
    task, progress = task_of(script, environments), Progress()
    terms = AssistedLearningTerms.model_validate(script.session.terms)
    every = terms.iterations
    best = environments.environment.best_return(_discount(terms))
    for sample in task.trajectory(
        task.initial_state,
        terms.optimizer_spec(1),
        iterations=script.session.rounds * every + 1,
        period=every,
        round=0,
    ):
        if sample.iteration:
            state = {name: tensor.clone() for name, tensor in sample.state.items()}
            progress.note(best - float(task.losses(state).mean()), task.test_returns(state), state)
    return progress


def _discount(terms: AssistedLearningTerms) -> float:
    return terms.policy_gradient.discount if terms.policy_gradient is not None else 1.0


def compete(players: Players, context: ExperimentContext) -> Metrics:
    """Trains by each algorithm.

    Returns:
        By algorithm, over rounds, means over seeds: `training`, `test_1`, `test_2`; and by seed their last values, `ends`.
    """
    found = context.once(learn, players)
    return {name: _means(runs) for name, runs in found.items()}


def _means(runs: list[Progress]) -> dict[str, Any]:
    by_test = {name: [run.tests[name] for run in runs] for name in runs[0].tests}
    return {
        "training": _mean([run.training for run in runs]),
        **{name: _mean(each) for name, each in by_test.items()},
        "ends": {name: [values[-1] for values in each] for name, each in by_test.items()},
    }


def _mean(runs: list[list[float]]) -> list[float]:
    return [fmean(values) for values in zip(*runs, strict=True)]


def draw(metrics: Metrics, figure: Figure) -> None:
    """The three panels of the paper."""
    titles = {"training": "own games", "test_1": "Test I", "test_2": "Test II"}
    labels = ("mean discounted return", "mean cumulative reward", "")
    for axes, key, label in zip(panels(figure, list(titles.values())), titles, labels, strict=True):
        curves(axes, {name: one[key] for name, one in metrics.items()}, y=label, legend=False)
    legend_below(figure)


def _above(baseline: str, share: float = 0.0) -> Any:
    """Whether AssistPG ends above a baseline in both tests, less a share of the baseline's reward."""

    def holds(metrics: Metrics) -> bool:
        pairs = [(metrics["AssistPG"][test][-1], metrics[baseline][test][-1]) for test in ("test_1", "test_2")]
        return all(ours > theirs - share * abs(theirs) for ours, theirs in pairs)

    return holds


CLAIMS = (
    Claim("AssistPG ends above Learner-PG in Test I and Test II", _above("Learner-PG")),
    Claim("AssistPG ends above PG on all games, or less than 10 % below, in Test I and Test II", _above("PG", 0.1)),
)
_CARTPOLE = Players("CartPole-v1", hidden=4, games=5, rounds=10)
# With SGD no algorithm learns to fly in so few updates.
LANDER = Players("LunarLander-v3", hidden=32, games=10, rounds=5, optimizer="adam", baseline="normalized")
LANDER_SHORT = replace(LANDER, evaluations=5, test_games=50)
_TINY = {"rounds": 1, "games": 2, "iterations": 4, "period": 1, "batch_size": 2, "evaluations": 5, "test_games": 2}
LANDER_TINY = replace(LANDER, **_TINY)  # type: ignore[arg-type]

EXPERIMENTS = (
    Experiment(
        "assisted-learning/fig-9",
        "Fig. 9: AssistPG, PG and Learner-PG in CartPole, by pole length",
        {
            "smoke": replace(_CARTPOLE, **_TINY),  # type: ignore[arg-type]
            "digits": replace(_CARTPOLE, seeds=tuple(range(5))),
            "paper": replace(_CARTPOLE, seeds=tuple(range(10))),
        },
        "the paper's own sizes, five seeds for ten; SGD and the mean of the other returns as a baseline, which the paper does not name",
        compete,
        draw,
        CLAIMS,
    ),
    Experiment(
        "assisted-learning/fig-10",
        "Fig. 10: AssistPG, PG and Learner-PG in LunarLander, by engine power (extra box2d)",
        {"smoke": LANDER_TINY, "digits": LANDER_SHORT, "paper": replace(LANDER, seeds=(0, 1, 2))},
        "one seed, evaluations of 5 episodes a game for 20 and tests of 50 games for 200; Adam and normalized returns, "
        "which the paper does not name",
        compete,
        draw,
        CLAIMS,
    ),
)
"""What this module runs."""
