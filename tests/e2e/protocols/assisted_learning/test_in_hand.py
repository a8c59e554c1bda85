"""What a person has in hand after a session: whether it was worth it, and what is left of one that was cut short."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import comity
from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.errors import SessionCancelled
from comity.experiments import demo_script, with_baselines
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script, parse_script
from comity.simulation.processes import running


def script(rounds: int, more: str = "") -> Script:
    text = demo_script("assisted_learning", 0).replace("rounds = 10", f"rounds = {rounds}")
    return parse_script(text.replace("[party.learner]\n", f"[party.learner]\n{more}\n"))


def test_a_result_says_what_the_learner_would_have_had_alone(short_path: Path) -> None:
    compared = script(2, "compare = { seeds = 1 }")
    with ExitStack() as stack:
        nodes = stack.enter_context(running(compared, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(compared, clients, SessionProgress(quiet=True))
    said = result["compared"]
    expected: Any = with_baselines(compared, result["metrics"])
    assert said["alone"] == pytest.approx(expected["learner_alone"])
    assert said["together"] == result["metrics"]["assisted"]
    assert said["gain"] == pytest.approx(said["together"] - said["alone"])
    assert len(said["by"]["rows"]) == 10
    kept = short_path / "learner" / "state" / "sessions" / result["session"] / "result.json"
    assert json.loads(kept.read_text())["compared"] == said


def test_a_session_that_is_cancelled_leaves_what_its_rounds_came_to(short_path: Path) -> None:
    endless = script(400)
    with ExitStack() as stack:
        nodes = stack.enter_context(running(endless, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}

        class Impatient(SessionProgress):
            def observe(self, event: Any) -> None:
                if event.kind == "round-finished" and event.round == 2:
                    clients["learner"].cancel(self.session)

        with pytest.raises(SessionCancelled):
            drive(endless, clients, Impatient(quiet=True))
        details = clients["learner"].details("demo-0")
    kept = json.loads(details.result)["kept"]
    assert kept["rounds"] >= 2
    assert dict(details.charged)["round"] >= 2
    folder = short_path / "learner" / "state" / "sessions" / "demo-0"
    model = comity.load_model(folder)
    assert model.model.digest == kept["digest"]
    assert json.loads((folder / "result.json").read_text())["metrics"]["assisted"] > 0


def test_a_comparison_that_takes_too_long_is_left_out_and_the_session_ends_well(short_path: Path) -> None:
    compared = script(2, "compare = { seeds = 100, share = 0, at_least_s = 0.5 }")
    notes = []

    class Listening(SessionProgress):
        def observe(self, event: Any) -> None:
            if event.kind == "note":
                notes.append(event.fields["what"])

    with ExitStack() as stack:
        nodes = stack.enter_context(running(compared, short_path))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(compared, clients, Listening(quiet=True))
    assert result["compared"] is None
    assert result["metrics"]["assisted"] > 0
    (said,) = [each for each in notes if each.startswith("not compared")]
    assert "share and at_least_s in [compare] of node.toml" in said
    assert (short_path / "learner" / "state" / "sessions" / result["session"] / "model.safetensors").exists()
