"""What assisted learning is compared with (section 4.2 and A.6 of the paper): one party alone, and all data in one place.

Each trains as many iterations as all parties together make in the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from comity.contract import Contract, Json
from comity.data import Dataset, Splits
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocols.assisted_learning.alone import trained
from comity.protocols.assisted_learning.schedule import Schedule
from comity.simulation.in_process import parties


def added(script: Script, metrics: Mapping[str, Json]) -> dict[str, Json]:
    """A session's metrics with those of its baselines.

    Returns:
        Beside the metrics, the score on the learner's test samples, such as accuracy, 0 to 1: `learner_alone` (Learner-SGD),
        `provider_alone` (Provider-SGD, where there is one) and `pooled` (SGD on all data); None where it has none. `tested`
        has all that the tests say of each. Of games, mean returns in the learner's first test: `learner_alone` (Learner-PG)
        and `pooled` (PG), and in all of its tests under `…_returns`.
    """
    (learner,), providers = parties(script)
    if learner.holdings.is_reinforcement:
        return {**metrics, **_returns(script, learner, providers)}
    own, test = learner.holdings.splits.train, learner.holdings.splits.test
    trains = {"learner_alone": own}
    if len(providers) == 1:
        trains["provider_alone"] = providers[0].holdings.splits.train
    trains["pooled"] = reduce(Dataset.concat, (each.holdings.splits.train for each in providers), own)
    found = {name: _tested(script, learner, providers, Splits(train, test)) for name, train in trains.items()}
    score = str(metrics["score"])
    known: Any = metrics.get("tested", {})
    return {
        **metrics,
        **{name: test.get(score) for name, test in found.items()},
        "tested": {**known, **{name: test for name, test in found.items() if test}},
    }


def _returns(script: Script, learner: LocalParty, providers: Sequence[LocalParty]) -> dict[str, Json]:
    """Mean return of Learner-PG and of PG (section 4.3) in the first of the learner's tests."""
    own = learner.holdings.environments
    pooled = replace(
        own, parameters=np.concatenate([each.holdings.environments.parameters for each in (learner, *providers)])
    )
    found: dict[str, Json] = {}
    for name, environments in {"learner_alone": own, "pooled": pooled}.items():
        contract, schedule = _agreed(script, learner, providers)
        task = learner.task(contract, environments=environments)
        returns = task.test_returns(trained(task, schedule))
        found[name] = next(iter(returns.values()), None)
        found[f"{name}_returns"] = returns
    return found


def _tested(script: Script, learner: LocalParty, providers: Sequence[LocalParty], splits: Splits) -> dict[str, Json]:
    """What the learner's test says of a model that was trained on some samples."""
    contract, schedule = _agreed(script, learner, providers)
    task = learner.task(contract, splits)
    found: dict[str, Json] = task.tested(trained(task, schedule))
    return found


def _agreed(script: Script, learner: LocalParty, providers: Sequence[LocalParty]) -> tuple[Contract, Schedule]:
    contract, definition = draft_contract(script, learner, "baseline")
    own = learner.membership(definition.initiator, contract)
    return contract, Schedule(contract, own, [each.membership(definition.acceptor, contract) for each in providers])
