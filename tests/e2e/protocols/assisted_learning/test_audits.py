"""`comity audit` on what daemons sent: samples that a hostile contract shows are found, and what the guard leaves is counted."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.experiments import demo_script
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.processes import running

KEEP = "audit = { keep = true, max_bytes = 10000000 }\n"


def audits(comity: Any, folder: Path, names: list[str], *, audit: str = KEEP, **terms: object) -> list[dict[str, Any]]:
    """What audits find at the provider after a session of two daemons with these terms, which it kept as it is told."""
    text = (
        demo_script("assisted_learning", 0)
        .replace("rounds = 10", "rounds = 1")
        .replace("hidden = 64", "hidden_layers = 0")
    )
    kept = [line for line in text.splitlines() if line.split("=")[0].strip() not in terms]
    text = "\n".join(kept).replace(
        "[session.terms]\n",
        "[session.terms]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in terms.items()),
    )
    script = parse_script(text.replace("[party.provider]\n", f"[party.provider]\n{audit}"))
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, folder))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        drive(script, clients, SessionProgress(quiet=True))
    node = folder / "provider"
    return [
        comity.json("audit", name, "demo-0", "--config", "node.toml", "--json", cwd=node)["found"] for name in names
    ]


SINGLE_STEPS = {"optimizer": "sgd", "learning_rate": 1e-4, "batch_size": 1, "sampling_period": 1, "iterations": 60}


def test_single_steps_show_samples_and_the_audit_says_which_many(comity: Any, short_path: Path) -> None:
    shown, told = audits(comity, short_path, ["reconstruction", "membership"], **SINGLE_STEPS)
    # 60 steps of both, split by samples: 44 models of the provider, of which the first is what it was sent.
    assert shown["changes"] == 43
    assert shown["changes_that_show_a_sample"] >= 41
    assert 30 <= shown["distinct_samples_shown"] <= 42
    assert shown["losses_sent"] == 44
    assert shown["blobs_not_kept"] == 0
    assert told["members"] == 100
    assert all(0 <= told[name] <= 1 for name in ("loss_auc", "lira_auc", "lira_tpr_at_1_percent"))


@pytest.mark.slow
def test_what_does_not_fit_the_quota_is_not_kept_and_leaves_all_the_same(comity: Any, short_path: Path) -> None:
    small = "audit = { keep = true, max_bytes = 10000 }\n"
    (shown,) = audits(comity, short_path, ["reconstruction"], audit=small, **SINGLE_STEPS)
    assert shown["blobs_not_kept"] > 30
    # What the last round left is there as well, until comity gc.
    assert 0 < shown["changes"] <= 43
    kept = short_path / "provider" / "state" / "audit"
    assert 0 < sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) <= 10_000


@pytest.mark.slow
def test_without_copies_an_audit_says_what_to_set(comity: Any, short_path: Path) -> None:
    with pytest.raises(AssertionError, match="keep = true"):
        audits(comity, short_path, ["reconstruction"], audit="", **SINGLE_STEPS)
