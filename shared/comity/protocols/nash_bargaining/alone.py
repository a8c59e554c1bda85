"""What Nash bargaining is compared with: the learner alone, in as many steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.protocol.comparing import Alone, Comparing, Test
from comity.protocols.nash_bargaining.choices import score_field
from comity.protocols.nash_bargaining.task import BargainingTask, bargaining_terms
from comity.protocols.nash_bargaining.terms import NashBargainingTerms


def trained_alone(task: BargainingTask, terms: NashBargainingTerms, rounds: int, repeat: int = 0) -> Test:
    """What a test says of the learner's model after as many steps on its own samples.

    Args:
        task: The learner's task.
        terms: How it trains.
        rounds: How many steps the session has.
        repeat: Decides the batches.
    """
    steps = rounds * terms.local_steps
    state = task.initial_state
    for made in task.local.trajectory(
        task.initial_state, terms.local_optimizer, iterations=steps + 1, period=steps, round=1 + repeat
    ):
        state = made.state
    return task.local.tested(state)


def _alone(of: Alone) -> Test:
    return trained_alone(of.task, bargaining_terms(of.contract.terms), of.contract.rounds, of.repeat)


def _together(metrics: Mapping[str, Any]) -> Test:
    found: Test = metrics.get("tested", {}).get(score_field(metrics["score"], "bargained"), {})
    return found


COMPARING = Comparing(_alone, _together, "as many steps of its own")
