"""Protocols of packages that nothing of the library knows, between daemons, and what operators see of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script, parse_script
from comity.simulation.processes import NodeProcess, running
from tests.packages.scripts import SCRIPTS


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


@pytest.fixture(scope="module", params=SCRIPTS)
def done(request: pytest.FixtureRequest) -> Iterator[Done]:
    script = parse_script(SCRIPTS[request.param])
    with TemporaryDirectory(prefix="e2e-") as folder, running(script, Path(folder)) as nodes, ExitStack() as stack:
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        result, _ = drive(script, clients, stack.enter_context(SessionProgress(quiet=True)))
        yield Done(script, nodes, result)


def test_a_session_of_daemons_is_its_simulation(done: Done, typed: Any, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SCRIPTS[done.script.session.protocol])
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
