"""What assisted learning is compared with (section 4.2 and A.6 of the paper): one party alone, and all data in one place.

Each trains as many iterations as learner and provider together make in the session.
"""

from __future__ import annotations

from collections.abc import Mapping

from comity.data import Splits
from comity.node.asking import draft_contract
from comity.node.party import LocalParty
from comity.node.script import Script
from comity.protocols.assisted_learning.messages import AssistedLearningTerms
from comity.session.events import Json
from comity.simulation.in_process import parties
from comity.tensors import State


def added(script: Script, metrics: Mapping[str, Json]) -> dict[str, Json]:
    """A session's metrics with those of its baselines.

    Returns:
        Beside the metrics, test accuracy, 0 to 1, on the learner's test samples: `learner_alone` (Learner-SGD), `provider_alone`
        (Provider-SGD) and `pooled` (SGD on all data); None where it has none.
    """
    (learner,), (provider,) = parties(script)
    test = learner.splits.test
    trains = {
        "learner_alone": learner.splits.train,
        "provider_alone": provider.splits.train,
        "pooled": learner.splits.train.concat(provider.splits.train),
    }
    return {**metrics, **{name: _accuracy(script, learner, Splits(train, test)) for name, train in trains.items()}}


def _accuracy(script: Script, learner: LocalParty, splits: Splits) -> float | None:
    contract, _ = draft_contract(script, learner, "baseline")
    terms = AssistedLearningTerms.model_validate(contract.terms.model_dump())
    task = learner.task(contract, splits)
    iterations = terms.iterations * contract.rounds
    final: State = {}
    # Sampled at its beginning and its end.
    for sample in task.trajectory(
        task.initial_state, terms.optimizer_spec, iterations=iterations + 1, period=iterations, round=0
    ):
        final = sample.state
    return task.test_accuracy(final)
