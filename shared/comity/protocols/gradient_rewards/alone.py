"""What gradient rewards are compared with: each client alone, in as many epochs (section 5 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.protocol.comparing import Alone, Comparing, Test
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.tensors import State


def trained_alone(task: Any, terms: GradientRewardsTerms, rounds: int, repeat: int = 0) -> Test:
    """What a test says of what a client reaches in as many epochs without the others.

    Args:
        task: The client's local task.
        terms: How it trains.
        rounds: In how many rounds.
        repeat: Decides the batches.
    """
    iterations = terms.epochs * -(-task.samples // terms.batch_size)
    state: State = task.initial_state
    for round in range(1, rounds + 1):
        start = {name: tensor.clone() for name, tensor in state.items()}
        spec, place = terms.optimizer_spec(round), round + repeat * rounds
        for sample in task.trajectory(start, spec, iterations=iterations + 1, period=iterations, round=place):
            state = sample.state
    found: Test = task.tested(state)
    return found


def _alone(of: Alone) -> Test:
    terms = GradientRewardsTerms.model_validate(of.contract.terms.model_dump())
    return trained_alone(of.task, terms, of.contract.rounds, of.repeat)


def _together(metrics: Mapping[str, Any]) -> Test:
    found: Test = metrics.get("tested", {}).get("own_score", {})
    return found


COMPARING = Comparing(_alone, _together, "as many epochs as in the session")
