"""What assisted learning is compared with (section 4.2 and A.6 of the paper): one party alone, and all data in one place.

Each trains as many iterations as learner and provider together make in the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from comity.contract import Contract
from comity.data import Splits
from comity.node.asking import draft_contract
from comity.node.party import LocalParty, LocalTask
from comity.node.script import Script
from comity.protocols.assisted_learning.messages import AssistedLearningTerms
from comity.session.events import Json
from comity.simulation.in_process import parties
from comity.tensors import State


def added(script: Script, metrics: Mapping[str, Json]) -> dict[str, Json]:
    """A session's metrics with those of its baselines.

    Returns:
        Beside the metrics, test accuracy, 0 to 1, on the learner's test samples: `learner_alone` (Learner-SGD), `provider_alone`
        (Provider-SGD) and `pooled` (SGD on all data); None where it has none. Of games, mean returns in the learner's first
        test: `learner_alone` (Learner-PG) and `pooled` (PG), and in all of its tests under `…_returns`.
    """
    (learner,), (provider,) = parties(script)
    if learner.plays:
        return {**metrics, **_returns(script, learner, provider)}
    test = learner.splits.test
    trains = {
        "learner_alone": learner.splits.train,
        "provider_alone": provider.splits.train,
        "pooled": learner.splits.train.concat(provider.splits.train),
    }
    return {**metrics, **{name: _accuracy(script, learner, Splits(train, test)) for name, train in trains.items()}}


def _returns(script: Script, learner: LocalParty, provider: LocalParty) -> dict[str, Json]:
    """Mean return of Learner-PG and of PG (section 4.3) in the first of the learner's tests."""
    own, other = learner.arena, provider.arena
    pooled = replace(own, parameters=np.concatenate([own.parameters, other.parameters]))
    found: dict[str, Json] = {}
    for name, arena in {"learner_alone": own, "pooled": pooled}.items():
        contract, terms = _agreed(script, learner)
        task = learner.task(contract, arena=arena)
        returns = task.test_returns(_trained(task, terms, contract.rounds))
        found[name] = next(iter(returns.values()), None)
        found[f"{name}_returns"] = returns
    return found


def _accuracy(script: Script, learner: LocalParty, splits: Splits) -> float | None:
    contract, terms = _agreed(script, learner)
    task = learner.task(contract, splits)
    return task.test_accuracy(_trained(task, terms, contract.rounds))


def _agreed(script: Script, learner: LocalParty) -> tuple[Contract, AssistedLearningTerms]:
    contract, _ = draft_contract(script, learner, "baseline")
    return contract, AssistedLearningTerms.model_validate(contract.terms.model_dump())


def _trained(task: LocalTask, terms: AssistedLearningTerms, rounds: int) -> State:
    """The model after as many iterations as both parties make in all rounds.

    Where there are more than one round, the optimiser goes on: nobody else has trained in between.
    """
    iterations = terms.iterations * rounds
    final: State = {}
    # Sampled at its beginning and its end.
    for sample in task.trajectory(
        task.initial_state, terms.optimizer_spec, iterations=iterations + 1, period=iterations, round=0
    ):
        final = sample.state
    return final
