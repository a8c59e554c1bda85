"""What an operator does with the sessions of a node: watches, lists, shows, cancels, resumes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script, session_text
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess, prepare

SCRIPT = """\
[session]
protocol = "teacher_votes"
id = "{id}"
acceptors = ["hospital"]
rounds = {rounds}

[session.models.student]
name = "mlp"
options = {{ hidden = 8 }}

[session.terms]
steps = {steps}

[party.clinic]
role = "student"
secret = "c"
policy = {{ egress = ["contract", "vote"] }}
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "learner" }} }}

[party.hospital]
role = "teacher"
secret = "h"
policy = {{ egress = ["contract", "vote"] }}
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "provider" }} }}
"""

# Of a student whose teachers are all away, a session fails; of an analyst, it stops.
COUNT = """\
[session]
protocol = "federated_count"
id = "{id}"
acceptors = ["hospital"]
rounds = 400

[party.clinic]
role = "analyst"
policy = {{ egress = ["contract", "count"] }}
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "learner" }} }}

[party.hospital]
role = "site"
policy = {{ egress = ["contract", "count"] }}
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "provider" }} }}
"""


class Pair:
    """Both nodes of a script, and a folder for what their operators type."""

    def __init__(self, folder: Path, nodes: dict[str, NodeProcess]) -> None:
        self.folder = folder
        self.clinic, self.hospital = nodes["clinic"], nodes["hospital"]

    def begin(self, id: str, **values: Any) -> str:
        """Begins a session at the clinic."""
        return self.run(script(id, **values))

    def run(self, text: str) -> str:
        """Begins a script's session at the clinic."""
        with ControlClient(self.clinic.control_url) as control:
            return control.run(session_text(parse_script(text)))

    def state(self, session: str, node: NodeProcess) -> str:
        """What a node says of a session."""
        with ControlClient(node.control_url) as control:
            return control.details(session).summary.state

    def is_on(self, session: str) -> Callable[[], bool]:
        """Whether the hospital works on a session."""

        def told() -> bool:
            with ControlClient(self.hospital.control_url) as control:
                return any((each.session, each.state) == (session, "running") for each in control.sessions())

        return told


def script(id: str, rounds: int = 2, steps: int = 4) -> str:
    return SCRIPT.format(id=id, rounds=rounds, steps=steps)


def endless(id: str) -> dict[str, Any]:
    """A session that is not over before somebody ends it."""
    return {"id": id, "rounds": 500, "steps": 2000}


@contextmanager
def started(folder: Path, retry_s: float = 60.0, text: str = "") -> Iterator[Pair]:
    nodes = prepare(parse_script(text or script("none")), folder)
    clinic = nodes["clinic"].folder / "node.toml"
    clinic.write_text(clinic.read_text() + f"\n[retry]\nretry_s = {retry_s}\n")
    try:
        for node in nodes.values():
            node.start()
        for node in nodes.values():
            node.wait_ready()
        yield Pair(folder, nodes)
    finally:
        for node in nodes.values():
            node.stop()


@pytest.fixture(scope="module")
def pair(site: Any) -> Iterator[Pair]:
    with started(site.folder) as nodes:
        yield nodes


def test_both_sides_see_a_session_to_its_end(pair: Pair, comity: Any) -> None:
    pair.begin("seen", rounds=3)
    done = comity("watch", "seen", "--node", "clinic", cwd=pair.folder)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "teacher_votes with hospital: 3 rounds"
    assert lines[1].split("  ")[0].strip() == "round"
    assert lines[1].endswith("left")
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3"]
    assert lines[-1].endswith(" 0 s")
    assert "model digest" in done.stdout
    assert "the model is in" in done.stdout
    for name, role, other in (("clinic", "student", "hospital"), ("hospital", "teacher", "clinic")):
        (row,) = [
            each
            for each in comity.json("sessions", "--node", name, cwd=pair.folder)["sessions"]
            if each["session"] == "seen"
        ]
        assert (row["role"], row["peers"], row["state"]) == (role, [other], "finished")
        assert (row["rounds"], row["rounds_finished"]) == (3, 3)
        shown = comity.json("show", "seen", "--node", name, cwd=pair.folder)
        assert shown["charged"] == {"request": 24}
        assert shown["contract"]["session"] == "seen"
        assert comity("show", "seen", "--node", name, cwd=pair.folder).stdout.startswith("session seen: teacher_votes")
    ours, theirs = (comity.json("show", "seen", "--node", name, cwd=pair.folder) for name in ("clinic", "hospital"))
    assert ours["bytes_sent"] == theirs["bytes_received"]
    assert ours["contract_hash"] == theirs["contract_hash"]


def test_a_session_that_ended_before_a_restart_is_still_there(short_path: Path, comity: Any) -> None:
    with started(short_path) as pair:
        pair.begin("kept", rounds=1)
        first = comity.json("watch", "kept", "--node", "clinic", cwd=short_path)
        pair.clinic.stop()
        pair.clinic.start()
        pair.clinic.wait_ready()
        done = comity("watch", "--node", "clinic", cwd=short_path)  # the last one is the default
        assert f"model digest {first['digest']}" in done.stdout
        # How its rounds went is told as well.
        assert [line.split()[0] for line in done.stderr.splitlines()[2:]] == ["1"]
        written = comity.json("report", "--node", "clinic", "--out", "kept.html", cwd=short_path)
        assert written == {"session": "kept", "sessions": ["kept"], "report": "kept.html"}
        page = (short_path / "kept.html").read_text()
        assert first["digest"] in page
        assert page.count("<svg") >= 3
        line = comity.fails("report", "--node", "clinic", "--out", "no/where.html", cwd=short_path, code=2)
        assert "no/where.html cannot be written" in line


def test_the_asker_cancels(pair: Pair, comity: Any, wait_until: Callable[..., None]) -> None:
    session = pair.begin(**endless("unwanted"))
    wait_until(pair.is_on(session), "it is on")
    with comity.begun("watch", session, "--node", "clinic", cwd=pair.folder) as (follower, _):
        assert comity.json("cancel", session, "--node", "clinic", cwd=pair.folder)["peer_told"] is True
        assert follower.wait(30) == 1
        assert "cancelled by this node's operator" in follower.stderr.read()
    assert pair.state(session, pair.clinic) == pair.state(session, pair.hospital) == "cancelled"
    for node in (pair.clinic, pair.hospital):
        assert not list((node.folder / "state" / "blobs").glob(f"{session}/*"))
    line = comity.fails("cancel", session, "--node", "clinic", cwd=pair.folder, code=2)
    assert "expected an active one, received cancelled" in line
    line = comity.fails("resume", session, "--node", "clinic", cwd=pair.folder, code=2)
    assert "expected one that stopped, received cancelled" in line


def test_the_helper_cancels(pair: Pair, comity: Any, wait_until: Callable[..., None]) -> None:
    session = pair.begin(**endless("refused-later"))
    wait_until(pair.is_on(session), "it is on")
    assert comity("cancel", session, "--node", "hospital", cwd=pair.folder).returncode == 0
    line = comity.fails("watch", session, "--node", "clinic", cwd=pair.folder, code=1)
    assert "cancelled by the other party's operator" in line
    assert pair.state(session, pair.clinic) == pair.state(session, pair.hospital) == "cancelled"
    # Room for another.
    pair.begin("after", rounds=1)
    assert comity.json("watch", "after", "--node", "clinic", cwd=pair.folder)["rounds"] == 1


def test_an_interrupt_leaves_the_session_and_says_how_to_come_back(pair: Pair, comity: Any) -> None:
    path = pair.folder / "session.toml"
    path.write_text(session_text(parse_script(script(**endless("left-alone")))))
    with comity.begun("run", path, "--node", "clinic", cwd=pair.folder) as (follower, _):
        for line in follower.stderr:
            if line.split()[:1] == ["1"]:
                break
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130
        assert "come back with: comity watch left-alone --node clinic" in follower.stderr.read()
    assert pair.state("left-alone", pair.clinic) == "running"
    comity.json("cancel", "left-alone", "--node", "clinic", cwd=pair.folder)


def test_a_node_in_one_picture(pair: Pair, comity: Any, wait_until: Callable[..., None]) -> None:
    session = pair.begin(**endless("pictured"))
    wait_until(pair.is_on(session), "it is on")
    status = comity.json("status", "--node", "hospital", cwd=pair.folder)
    assert (status["node"]["party"], status["node"]["role"]) == ("hospital", "teacher")
    (on,) = [each for each in status["sessions"] if each["session"] == session]
    assert (on["state"], on["rounds"]) == ("running", 500)
    assert (status["counted"], status["max_sessions"]) == (1, 16)
    assert set(status["queues"]) == {session}
    assert status["disk"]["promised"] > 0
    assert status["disk"]["quota"] is None
    assert status["privacy"] == {"spent": 0.0, "limit": None}
    assert status["bytes_received"]["contract"] > 0
    assert status["entries"] >= len(status["tail"]) > 0
    assert status["uptime_s"] > 0
    shown = comity("status", "--node", "hospital", cwd=pair.folder).stdout
    for part in ("hospital, teacher", session, "promised", "ledger:"):
        assert part in shown
    comity.json("cancel", session, "--node", "clinic", cwd=pair.folder)
    wait_until(
        lambda: comity.json("status", "--node", "hospital", cwd=pair.folder)["disk"]["promised"] == 0, "room again"
    )


def test_what_nobody_has(pair: Pair, comity: Any) -> None:
    for verb in ("show", "watch"):
        line = comity.fails(verb, "s-nobody", "--node", "clinic", cwd=pair.folder, code=2)
        assert "no such session at this node" in line
    for verb in ("cancel", "resume"):
        line = comity.fails(verb, "s-nobody", "--node", "clinic", cwd=pair.folder, code=2)
        assert "s-nobody" in line
    line = comity.fails("sessions", "--node", "nowhere", cwd=pair.folder, code=2)
    assert "no node runs here" in line


def test_a_session_that_stopped_goes_on(short_path: Path, comity: Any, wait_until: Callable[..., None]) -> None:
    text = COUNT.format(id="cut")
    with started(short_path, retry_s=1.0, text=text) as pair:
        session = pair.run(text)
        wait_until(pair.is_on(session), "it is on")
        pair.hospital.kill()
        line = comity.fails("watch", session, "--node", "clinic", cwd=short_path, code=1)
        assert "hospital cannot be reached" in line
        (row,) = comity.json("sessions", "--node", "clinic", cwd=short_path)["sessions"]
        assert row["state"] == "stopped"
        pair.hospital.start()
        pair.hospital.wait_ready()
        assert comity("resume", session, "--node", "clinic", cwd=short_path).returncode == 0
        result = comity.json("watch", session, "--node", "clinic", cwd=short_path)
        alone, _ = simulate(parse_script(text))
        assert (result["digest"], result["metrics"]) == (alone.digest, alone.metrics)
        done = comity("watch", session, "--node", "clinic", cwd=short_path)
        rounds = [line.split()[0] for line in done.stderr.splitlines() if line.split()[0].isdigit()]
        assert rounds == [str(number) for number in range(1, 401)]
        assert (
            json.loads((pair.clinic.folder / "state/sessions/cut/result.json").read_text())["digest"]
            == result["digest"]
        )


def test_a_node_whose_process_crashed_says_where(short_path: Path) -> None:
    with started(short_path) as pair:
        os.kill(pair.hospital.pid, signal.SIGSEGV)
        assert pair.hospital.exit_code(30.0) == -signal.SIGSEGV
        pair.hospital.start()
        pair.hospital.wait_ready()
        lines = (pair.hospital.folder / "log").read_text().splitlines()
        (said,) = [each for each in map(json.loads, lines) if each["event"] == "node-crashed"]
        written = Path(said["crash_file"]).read_text()
        assert "Segmentation fault" in written
        assert "comity/node/daemon.py" in written
