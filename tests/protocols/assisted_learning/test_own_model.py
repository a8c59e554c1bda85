"""AssistKD in sessions: both parties train models of their own, and exchange the contract's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from comity.errors import InvalidValue
from comity.experiments import demo_script
from comity.experiments.datasets import Datasets
from comity.experiments.reproduction import ExperimentContext
from comity.node.sessions.ending import keep_files
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script, parse_script
from comity.protocols.assisted_learning.studies.comparisons import comparison
from comity.protocols.assisted_learning.studies.distillation import EXPERIMENTS
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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_with_few_samples_the_own_model_ends_above_learning_alone(tmp_path: Path) -> None:
    """Fig. 15 with 40 samples at the learner, the mean of five seeds; from its initial weights in every round it ended below."""
    settings = EXPERIMENTS[0].scales["digits"]
    few = replace(settings, pairs=settings.pairs[:1], algorithms=("AssistKD", "Learner-SGD"))
    assert len(few.seeds) == 5
    (found,) = comparison(few, ExperimentContext(Datasets(tmp_path, None))).values()
    assert found["AssistKD"]["own"] > 100 * found["Learner-SGD"]["accuracy"][-1] + 4
