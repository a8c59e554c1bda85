"""A configuration that is read again while the node runs: what is in force then, and what waits for a restart."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from comity.errors import UsageError
from comity.node.config import NodeConfig, load_config
from comity.node.control_client import ControlClient
from comity.node.daemon import Node
from comity.node.reloading import reload
from comity.node.sessions.script import parse_script
from comity.session.limits import RESTART_ONLY, Limits
from comity.simulation.processes import NodeProcess, prepare
from tests.e2e.conftest import until
from tests.e2e.test_operating import script


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    node = prepare(parse_script(script("none")), tmp_path_factory.mktemp("reload"))["hospital"]
    edit(node, logs={"file": "state/node.log", "max_bytes": 10_000, "keep": 2})
    node.start()
    node.wait_ready()
    yield node
    node.stop()


def edit(node: NodeProcess, **tables: Any) -> str:
    """Changes a node's file; what it was before."""
    file = node.folder / "node.toml"
    before = file.read_text()
    document = tomlkit.parse(before)
    for name, value in tables.items():
        if isinstance(value, dict):
            document[name] = dict(document.get(name, {})) | value
        else:
            document[name] = value
    file.write_text(tomlkit.dumps(document))
    return before


def lines(node: NodeProcess) -> list[dict[str, Any]]:
    """What its log file says."""
    file = node.folder / "state" / "node.log"
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_policy_and_limits_are_in_force_and_the_rest_is_said(hospital: NodeProcess, typed: Any) -> None:
    edit(hospital, policy={"max_sessions": 3}, limits={"call_s": 5.0, "calls": 64}, drain_s=1.0, device="cpu")
    done = typed("reload", "--node", str(hospital.folder), "--json", cwd=hospital.folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found["applied"]) == ["drain_s", "limits.call_s", "policy.max_sessions"]
    assert sorted(found["restart"]) == ["device", "limits.calls"]
    with ControlClient(hospital.control_url) as control:
        assert control.status().max_sessions == 3
    said = typed("reload", "--node", str(hospital.folder), cwd=hospital.folder)
    assert "waits for a restart: device, limits.calls" in said.stdout
    assert "nothing that differs" in said.stdout


def test_a_file_that_cannot_be_used_changes_nothing(hospital: NodeProcess, typed: Any) -> None:
    before = edit(hospital, policy={"max_sessions": 2, "max_sesions_a_party": 1})
    try:
        done = typed("reload", "--node", str(hospital.folder), cwd=hospital.folder)
        assert done.returncode == 2
        assert "max_sessions_a_party" in done.stderr
        with ControlClient(hospital.control_url) as control:
            assert control.status().max_sessions != 2
    finally:
        (hospital.folder / "node.toml").write_text(before)


def test_sighup_reads_it_and_the_log_says_what_came_of_it(hospital: NodeProcess) -> None:
    edit(hospital, policy={"max_sessions": 7})
    os.kill(hospital.pid, signal.SIGHUP)

    def is_in_force() -> bool:
        with ControlClient(hospital.control_url) as control:
            return control.status().max_sessions == 7

    until(is_in_force, "the policy is read again")
    until(lambda: any("policy.max_sessions" in each.get("applied", []) for each in lines(hospital)), "it is logged")
    before = edit(hospital, policy={"max_sessions": 0})
    os.kill(hospital.pid, signal.SIGHUP)
    until(lambda: any(each["event"] == "configuration-not-reloaded" for each in lines(hospital)), "it is refused")
    (hospital.folder / "node.toml").write_text(before)


def config(folder: Path, text: str) -> NodeConfig:
    file = folder / "node.toml"
    file.write_text(f'party = "clinic"\nstate_dir = "state"\ninsecure = true\n{text}')
    return load_config(NodeConfig, file)


def test_every_key_is_either_taken_over_or_named(tmp_path: Path) -> None:
    """Nothing that was changed is passed over in silence."""
    old = config(tmp_path, "")
    new = config(
        tmp_path,
        'listen = "127.0.0.1:1"\nsecret = "s"\n[policy]\nmin_samples = 2\n[limits]\nidle_s = 1\nslowest = 0\n'
        '[peers.hospital]\naddress = "a:1"\n[web]\nenabled = true\n[privacy]\npreset = "public"\n',
    )
    applied, restart = reload(old, new)
    assert sorted(applied) == ["limits.slowest", "peers.hospital", "policy.min_samples"]
    assert sorted(restart) == ["limits.idle_s", "listen", "privacy.preset", "secret", "web.enabled"]
    assert old.policy.min_samples == 2
    assert (old.limits.slowest, old.limits.idle_s) == (0, Limits().idle_s)
    assert old.peers["hospital"].address == "a:1"
    assert not old.web.enabled
    assert reload(old, new)[0] == ()
    assert {*RESTART_ONLY} <= {*Limits.model_fields}


def test_a_node_without_a_file_says_so(tmp_path: Path) -> None:
    node = Node("analyst", NodeConfig(party="clinic", state_dir=tmp_path, insecure=True))
    with pytest.raises(UsageError, match="not started from a file"):
        node.reload()
