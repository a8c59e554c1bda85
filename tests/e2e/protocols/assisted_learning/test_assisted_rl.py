"""AssistPG between two daemons: poles of one party, help from the other's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from comity.experiments import demo_script

Demo = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def the_demo(once: Callable[..., Demo], comity: Any) -> Demo:
    def run(folder: Path) -> dict[str, Any]:
        return dict(comity.json("demo", "assisted-rl", "--sessions", 1, "--workdir", "kept", cwd=folder))

    return once("assisted-rl", run)


@pytest.mark.slow
def test_assistance_raises_the_return(the_demo: Demo) -> None:
    metrics = the_demo[1]["metrics"]
    # Whether a learner alone does better in one session is a draw that the processor's rounding decides.
    first, *_, last = metrics["global_return_by_round"]
    assert last > 1.1 * first
    assert metrics["learner_alone"] > 0
    assert set(metrics["test_returns"]) == {"test_1", "test_2"}
    assert metrics["assisted"] == metrics["test_returns"]["test_1"]
    assert all(0 < each <= 500 for each in metrics["test_returns"].values())


@pytest.mark.slow
def test_no_round_loses_return(the_demo: Demo) -> None:
    metrics = the_demo[1]["metrics"]
    assert all(after <= before for before, after in pairwise(metrics["global_loss_by_round"]))
    assert all(after >= before for before, after in pairwise(metrics["global_return_by_round"]))


@pytest.mark.slow
def test_the_wire_is_that_of_classifiers(the_demo: Demo) -> None:
    result = the_demo[1]
    assert result["ledger_verified"] is True
    assert set(result["bytes_sent"]) == set(result["bytes_received"]) == {"contract", "checkpoint", "loss"}


def test_other_spaces_are_refused_in_one_line(comity: Any, tmp_path: Path) -> None:
    text = demo_script("assisted-rl", 0)
    before, provider = text.split("[party.provider.data]")
    other = (
        provider.replace("CartPole-v1", "Acrobot-v1")
        .replace('parameter = "length"', "best_return = 0.0")
        .replace("values =", "# values =")
    )
    (tmp_path / "session.toml").write_text(f"{before}[party.provider.data]{other}")
    line = comity.fails("simulate", "session.toml", cwd=tmp_path, code=3)
    assert "CartPole-v1: observations of 4 numbers, 2 actions" in line
    assert "Acrobot-v1: observations of 6 numbers, 3 actions" in line
