"""How many rounds a party's samples are likely to carry under its leak guard, found by training alone for a short while."""

from __future__ import annotations

from dataclasses import dataclass

from comity import interruption
from comity.errors import ComityError
from comity.node.preflight.work import Drafted
from comity.training import OptimizerSpec, Supervised

_AT_MOST_S = 10.0
"""Longest that is trained for it, in seconds."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a training alone came to.

    Attributes:
        rounds: Rounds of which all that would be sent may leave.
        is_refused: Whether in the next one something would show single samples.
    """

    rounds: int
    is_refused: bool


def rehearsed(session: Drafted) -> Rehearsed | None:
    """Trains for some seconds on this party's samples alone as a session would, judged as what leaves is, and counts the rounds.

    An estimate: in the session the others' help moves the model as well, and a party makes a share of the steps. What a
    model has learned it changes by few samples, so that it comes about as soon. Nothing is kept, and nothing leaves.

    Returns:
        None where no such training is judged: of games, with noise, or in a protocol that sends no models of trainings.
    """
    plan = session.local.training_plan(session.contract, session.own)
    if plan is None or plan.is_private:
        return None
    try:
        task = session.local.task(session.contract)
    except ComityError:
        # Another row says what does not fit.
        return None
    if not isinstance(task, Supervised) or not task.is_guarded:
        return None
    spec, state, finished = OptimizerSpec(plan.optimizer, plan.learning_rate), task.initial_state, 0
    try:
        with interruption.at_most(_AT_MOST_S):
            for round in range(1, session.contract.rounds + 1):
                # One more, so that the model after the last is judged, too.
                for snapshot in task.trajectory(
                    state, spec, iterations=plan.iterations + 1, period=plan.steps, round=round
                ):
                    if snapshot.verdict is not None and snapshot.verdict.is_refused:
                        return Rehearsed(finished, is_refused=True)
                    after = snapshot.state
                state = {name: tensor.clone() for name, tensor in after.items()}
                finished = round
    except interruption.TookTooLong:
        pass
    return Rehearsed(finished, is_refused=False)
