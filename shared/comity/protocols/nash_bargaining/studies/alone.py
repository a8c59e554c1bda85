"""What Nash bargaining is compared with: the learner alone, and the same session with powers that stay equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.contract import Json
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocol.comparing import Test
from comity.protocols.nash_bargaining.alone import COMPARING, trained_alone
from comity.protocols.nash_bargaining.choices import score_field
from comity.protocols.nash_bargaining.task import bargaining_terms
from comity.simulation.in_process import parties, simulate


def added(script: Script, metrics: Mapping[str, Any]) -> dict[str, Json]:
    """The metrics with what the session is compared with, and, where a provider's labels are permuted, `harmful`.

    Returns:
        Beside the metrics, `accuracy_alone` and `accuracy_equal`, of other kinds of task than classification `score_alone` and
        `score_equal`; `tested` has all that the tests say of each.
    """
    found = {"alone": _alone(script), "equal": _equal(script)}
    score = str(metrics["score"])
    named = {score_field(score, name): test for name, test in found.items()}
    return {
        **metrics,
        **{name: test.get(score) for name, test in named.items()},
        "tested": {**metrics.get("tested", {}), **{name: {**test} for name, test in named.items() if test}},
        "harmful": _harmful(script),
    }


def _alone(script: Script) -> Test:
    """What the learner's test says after as many steps on its own samples."""
    (learner,), _ = parties(script)
    contract, _ = draft_contract(script, learner, "baseline")
    return trained_alone(learner.task(contract), bargaining_terms(contract.terms), contract.rounds)


def _equal(script: Script) -> Test:
    """What it says where all providers keep the power that they begin with."""
    terms = script.session.terms | {"power_every": 0}
    session = script.session.model_copy(update={"terms": terms, "id": "equal"})
    return COMPARING.together(simulate(script.model_copy(update={"session": session}))[0].metrics)


def _harmful(script: Script) -> str | None:
    """A party whose labels went through a permutation."""
    for name, party in script.party.items():
        relabel = getattr(party.data, "relabel", None)
        if relabel is not None and sorted(relabel) == [*range(len(relabel))]:
            return name
    return None
