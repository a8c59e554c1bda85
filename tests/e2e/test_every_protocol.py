"""Every registered protocol between daemons: what operators see of a session, and that no sample crosses in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydantic import SecretStr

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.data.config import DataConfig
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script, session_text
from comity.simulation.processes import NodeProcess, running
from tests.cases import PROTOCOLS, plain
from tests.e2e.network import network
from tests.e2e.wiretap import make_samples, undo


@dataclass
class Done:
    """A session between daemons that is over; they run on."""

    script: Script
    nodes: dict[str, NodeProcess]
    result: dict[str, Any]

    def state(self, party: str) -> Path:
        return self.nodes[party].folder / "state"

    @property
    def session(self) -> str:
        return str(self.script.session.id)


@pytest.fixture(scope="module", params=PROTOCOLS)
def done(request: pytest.FixtureRequest) -> Iterator[Done]:
    script = plain(request.param).script
    with TemporaryDirectory(prefix="e2e-") as folder, running(script, Path(folder)) as nodes, ExitStack() as stack:
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(script, clients, stack.enter_context(SessionProgress(quiet=True)))
        yield Done(script, nodes, result)


def test_a_session_of_daemons_is_its_simulation(done: Done, typed: Any, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(plain(done.script.session.protocol).text)
    alone = typed.json("simulate", "s.toml", cwd=tmp_path)
    same = ("digest", "metrics", "bytes_sent", "bytes_received", "ledger_verified")
    assert {name: done.result[name] for name in same} == {name: alone[name] for name in same}
    assert done.result["metrics"]


def test_operators_see_it(done: Done, typed: Any, tmp_path: Path) -> None:
    for party, node in done.nodes.items():
        shown = typed.json("show", done.session, "--node", node.control_url, cwd=tmp_path)
        assert (shown["state"], shown["contract"]["protocol"]) == ("finished", done.script.session.protocol)
        watched = typed("watch", done.session, "--node", node.control_url, cwd=tmp_path)
        assert watched.returncode == 0, watched.stderr
        listed = typed.json("sessions", "--node", node.control_url, cwd=tmp_path)
        assert [each["session"] for each in listed["sessions"]] == [done.session], party


def test_ledgers_hold_and_agree(done: Done, typed: Any, tmp_path: Path) -> None:
    for party in done.nodes:
        assert typed.json("ledger", "verify", "--state", done.state(party), cwd=tmp_path)["verified"]
    center, *others = done.script.party
    for other in others:
        exported = typed("ledger", "export", "--state", done.state(other), cwd=tmp_path)
        (tmp_path / "theirs.json").write_text(exported.stdout)
        compared = typed("ledger", "compare", "theirs.json", "--state", done.state(center), cwd=tmp_path)
        assert compared.returncode == 0, compared.stdout + compared.stderr


def test_a_report_is_written(done: Done, typed: Any, tmp_path: Path) -> None:
    for node in done.nodes.values():
        made = typed("report", done.session, "--node", node.control_url, "--out", "r.html", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert done.session in (tmp_path / "r.html").read_text()


def test_a_check_knows_what_the_protocol_needs(done: Done, typed: Any, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(session_text(done.script))
    for party, node in done.nodes.items():
        role = done.script.party[party].role
        checked = typed(
            "check", role, "--config", node.folder / "node.toml", "--script", "s.toml", "--json", cwd=tmp_path
        )
        rows = {each["check"]: each for each in json.loads(checked.stdout)["rows"]}
        assert rows["model"]["verdict"] == "passed", rows["model"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_sample_crosses(protocol: str, short_path: Path) -> None:
    """What crossed between each two parties of a session holds no sample of either, nor what only its node knows."""
    script = plain(protocol).script
    vault = short_path / "vault-of-the-sentinel"
    vault.mkdir()
    needles = [("a place", b"vault-of-the-sentinel")]
    # All parties of a session store them alike.
    as_floats = bool(PROTOCOLS.index(protocol) % 2)
    for seed, (name, party) in enumerate(script.party.items()):
        party.secret = SecretStr(f"the-secret-of-{name}")
        needles.append((f"the secret of {name}", party.secret.get_secret_value().encode()))
        if party.data is not None:
            samples = make_samples(seed, 40, as_floats=as_floats, classes=10)
            samples.save(vault / f"{name}.npz")
            # What of them is for what stays as the protocol needs it.
            party.data = DataConfig(source=f"npz:{vault / name}.npz", splits=party.data.splits)
            needles += samples.needles()
    with network(script, short_path) as found:
        found.run()
    recordings = [undo(each.connections) for each in found.proxies]
    service = plain(protocol).definition.load().service.name.rpartition(".")[2]
    for recording in recordings:
        assert {"Sessions", service} <= {each.method.partition("/")[0] for each in recording.calls}
        # What did cross is found.
        assert recording.find([("the session", str(script.session.id).encode())])
        assert recording.find(needles) == []
