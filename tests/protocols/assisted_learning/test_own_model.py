"""AssistKD in sessions: both parties train models of their own, and exchange the contract's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from comity.errors import InvalidValue
from comity.experiments import demo_script
from comity.node.sessions.ending import keep_files
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script, parse_script
from comity.simulation.in_process import parties, simulate

OWN = """
[party.{party}.protocols.assisted-learning.own_model]
name = "mlp"
options = {{ hidden = {hidden} }}
learning_rate = 0.003
"""


def distilled(terms: str = "") -> Script:
    text = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 2")
    text = text.replace("[session.terms]\n", f"[session.terms]\n{terms}\n")
    return parse_script(text + OWN.format(party="learner", hidden=32) + OWN.format(party="provider", hidden=48))


def test_the_contracts_model_crosses_and_the_own_one_stays(tmp_path: Path) -> None:
    script = distilled()
    result, outcome = simulate(script)
    assert outcome.own is not None
    losses: Any = result.metrics["global_loss_by_round"]
    assert losses[1] <= losses[0]
    (learner,), _ = parties(script, tmp_path)
    contract, _ = draft_contract(script, learner, result.session)
    keep_files(learner, contract, outcome, result)
    learner.store.close()
    folder = tmp_path / "learner" / "sessions" / contract.session
    assert load_file(folder / "model.safetensors")["1.weight"].shape == (64, 64)
    assert load_file(folder / "own-model.safetensors")["1.weight"].shape == (32, 64)
    # The own model's size was nobody else's business: what crossed is as large as ever.
    plain, _ = simulate(parse_script(demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 2")))
    assert plain.bytes_sent["contract"] == result.bytes_sent["contract"]
    accuracy: Any = result.metrics["own_model"]
    assert accuracy > 0.5


def test_distillation_and_privacy_exclude_each_other() -> None:
    with pytest.raises(InvalidValue, match="Distillation is not covered"):
        simulate(distilled('privacy = { scope = "per_step", epsilon = 2.0 }'))
