"""What gradient rewards are compared with: each client alone (section 5 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.contract import Json
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocols.gradient_rewards.alone import trained_alone
from comity.protocols.gradient_rewards.report import with_alone
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.simulation.in_process import parties


def added(script: Script, metrics: Mapping[str, Any]) -> dict[str, Json]:
    """The metrics with `score_alone` and `fairness`: what each client reaches in as many epochs without the others."""
    clients, (server,) = parties(script)
    return with_alone(metrics, {client.name: _alone(script, server, client) for client in clients})


def _alone(script: Script, server: LocalParty, client: LocalParty) -> dict[str, Json]:
    """What a test says of what a client reaches."""
    contract, _ = draft_contract(script, server, "baseline")
    terms = GradientRewardsTerms.model_validate(contract.terms.model_dump())
    return {**trained_alone(client.task(contract), terms, contract.rounds)}
