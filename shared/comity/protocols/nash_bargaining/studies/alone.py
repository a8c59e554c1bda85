"""What Nash bargaining is compared with: the learner alone, and the same session with powers that stay equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.contract import Json
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocols.nash_bargaining.alone import trained_alone
from comity.protocols.nash_bargaining.task import bargaining_terms
from comity.simulation.in_process import parties, simulate


def added(script: Script, metrics: Mapping[str, Any]) -> dict[str, Json]:
    """The metrics with `accuracy_alone`, `accuracy_equal`, and, where a provider's labels are permuted, `harmful`."""
    return {
        **metrics,
        "accuracy_alone": _alone(script),
        "accuracy_equal": _equal(script),
        "harmful": _harmful(script),
    }


def _alone(script: Script) -> float | None:
    """The learner's accuracy after as many steps on its own samples."""
    (learner,), _ = parties(script)
    contract, _ = draft_contract(script, learner, "baseline")
    tested = trained_alone(learner.task(contract), bargaining_terms(contract.terms), contract.rounds)
    accuracy = tested.get("accuracy")
    return accuracy if isinstance(accuracy, float) else None


def _equal(script: Script) -> float | None:
    """Its accuracy where all providers keep the power that they begin with."""
    terms = script.session.terms | {"power_every": 0}
    session = script.session.model_copy(update={"terms": terms, "id": "equal"})
    result, _ = simulate(script.model_copy(update={"session": session}))
    accuracy = result.metrics["accuracy_bargained"]
    return accuracy if isinstance(accuracy, float) else None


def _harmful(script: Script) -> str | None:
    """A party whose labels went through a permutation."""
    for name, party in script.party.items():
        relabel = getattr(party.data, "relabel", None)
        if relabel is not None and sorted(relabel) == [*range(len(relabel))]:
            return name
    return None
