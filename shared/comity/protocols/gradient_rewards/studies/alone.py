"""What gradient rewards are compared with: each client alone (section 5 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.contract import Json
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocols.gradient_rewards.report import with_alone
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.simulation.in_process import parties
from comity.tensors import State


def added(script: Script, metrics: Mapping[str, Any]) -> dict[str, Json]:
    """The metrics with `score_alone` and `fairness`: what each client reaches in as many epochs without the others."""
    clients, (server,) = parties(script)
    return with_alone(metrics, {client.name: _alone(script, server, client) for client in clients})


def _alone(script: Script, server: LocalParty, client: LocalParty) -> dict[str, Json]:
    """What a test says of what a client reaches."""
    contract, _ = draft_contract(script, server, "baseline")
    terms = GradientRewardsTerms.model_validate(contract.terms.model_dump())
    task = client.task(contract)
    iterations = terms.epochs * -(-task.samples // terms.batch_size)
    state: State = task.initial_state
    for round in range(1, contract.rounds + 1):
        start = {name: tensor.clone() for name, tensor in state.items()}
        spec = terms.optimizer_spec(round)
        for sample in task.trajectory(start, spec, iterations=iterations + 1, period=iterations, round=round):
            state = sample.state
    tested: dict[str, Json] = task.tested(state)
    return tested
