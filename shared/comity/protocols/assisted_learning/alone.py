"""What assisted learning is compared with: a party alone, with as many iterations as all make together (section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.protocol.comparing import Alone, Comparing, Test
from comity.protocols.assisted_learning.own_losses import AssistedTask
from comity.protocols.assisted_learning.schedule import Schedule
from comity.tensors import State


def trained(task: AssistedTask, schedule: Schedule, repeat: int = 0) -> State:
    """The model after as many iterations as all parties make in all rounds.

    Where there are more than one round, the optimiser goes on: nobody else has trained in between.

    Args:
        task: What is trained.
        schedule: How much, and with which optimiser.
        repeat: Decides the batches.
    """
    iterations = schedule.iterations_of_all()
    final: State = {}
    # Sampled at its beginning and its end.
    for sample in task.trajectory(
        task.initial_state, schedule.terms.optimizer_spec(1), iterations=iterations + 1, period=iterations, round=repeat
    ):
        final = sample.state
    return final


def _alone(of: Alone) -> Test:
    found: Test = of.task.tested(trained(of.task, Schedule(of.contract, of.own, of.peers), of.repeat))
    return found


def _together(metrics: Mapping[str, Any]) -> Test:
    found: Test = metrics.get("tested", {}).get("assisted", {})
    # Of games a test says the return alone.
    return found or {metrics["score"]: metrics.get("assisted")}


COMPARING = Comparing(_alone, _together, "as many iterations as all parties made together")
