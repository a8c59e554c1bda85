"""What a bargaining round computes, with nothing sent or kept: what a session's round cannot do without."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocols.nash_bargaining.powers import bargained_round, initial_powers
from comity.protocols.nash_bargaining.task import bargaining_terms
from comity.simulation.in_process import parties


class Computed:
    """The learner's part of a round: the providers' gradients are made meanwhile, by others.

    Args:
        script: The session's.
    """

    def __init__(self, script: Script) -> None:
        (learner,), providers = parties(script)
        self._contract, _ = draft_contract(script, learner, "computed")
        self._terms = bargaining_terms(self._contract.terms)
        self._task = learner.task(self._contract)
        self._state = self._task.initial_state
        self._theirs = torch.stack([self._gradient(party.task(self._contract), 1) for party in providers])
        self._round = 0

    def once(self) -> float:
        """Processor seconds of two gradients, the game, the step and the test.

        Under load wall time would be longer than in a daemon, which has waited before, and gets a processor sooner.
        """
        self._round += 1
        began = time.process_time()
        own, main = (self._gradient(self._task, self._round + place) for place in (0, self._contract.rounds))
        players = torch.stack([own, *self._theirs])
        power = initial_powers(len(self._theirs), self._terms.main_power)
        came_to = bargained_round(players, power, torch.ones(len(players), dtype=torch.bool), main, self._terms.ridge)
        sizes = [self._state[name].numel() for name in self._task.parameters]
        parts = dict(zip(self._task.parameters, came_to.direction.split(sizes), strict=True))
        self._task.tested(
            {
                name: each if name not in parts else each - self._terms.learning_rate * parts[name].view_as(each)
                for name, each in self._state.items()
            }
        )
        return time.process_time() - began

    def _gradient(self, task: Any, place: int) -> Tensor:
        flat: Tensor = task.flat(task.gradient(self._state, None, self._terms, place=place).gradients)
        return flat
