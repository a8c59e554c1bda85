"""A simulation whose parties live apart: `comity prepare`, a daemon in each folder, one command that waits for them."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comity.node.sessions.script import parse_script, session_text
from tests.cases import PROTOCOLS, plain

TEXT = plain(PROTOCOLS[0]).text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def renamed(text: str) -> tuple[str, list[str]]:
    """A script whose parties are called after free ports; peers and the operator reach them at different addresses."""
    parties = [*parse_script(text).party]
    ports = [str(free_port()) for _ in parties]
    for name, port in zip(parties, ports, strict=True):
        text = re.sub(rf'(\[party\.|acceptors = \[.*"){name}\b', rf"\g<1>{port}", text)
    return text, ports


@pytest.fixture
def nodes(typed: Any, short_path: Path) -> tuple[Path, list[str]]:
    text, parties = renamed(TEXT)
    (short_path / "script.toml").write_text(text)
    made = typed.json(
        *("prepare", "script.toml", "nodes", "--listen", "127.0.0.1:{place}", "--control", "127.0.0.2:{place}"),
        cwd=short_path,
    )
    assert made == {"places": {party: party for party in parties}, "new": True}
    return short_path / "nodes", parties


def test_one_command_waits_and_runs(nodes: tuple[Path, list[str]], typed: Any, comity: Any, own_hand: Any) -> None:
    folder, parties = nodes
    home = folder.parent
    for file in folder.rglob("*.pem"):
        assert file.stat().st_mode & 0o077 == 0, "for its owner alone"
    health = ("health", "--node", f"nodes/{parties[0]}")
    assert "no node runs here" in comity.fails(*health, cwd=home, code=2)
    run = ("run", "nodes/operator/session.toml", "--nodes", "nodes/operator/nodes.toml", "--wait", "120")
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(comity.json, *run, cwd=home)
        for party in parties:
            own_hand.start(["comity", "node"], folder / party)
        result = running.result()
    assert result["digest"] == typed.json("simulate", "script.toml", cwd=home)["digest"]
    assert typed.json(*health, cwd=home) == {"serving": True}
    # Prepared again, what is there stays.
    again = ("prepare", "script.toml", "nodes", "--listen", "127.0.0.1:{place}", "--control", "127.0.0.2:{place}")
    assert typed.json(*again, cwd=home)["new"] is False


def test_who_is_not_there_in_time_is_named(nodes: tuple[Path, list[str]], typed: Any) -> None:
    folder, parties = nodes
    run = ("run", "nodes/operator/session.toml", "--nodes", "nodes/operator/nodes.toml", "--wait", "0.1")
    line = typed.fails(*run, cwd=folder.parent, code=1)
    assert f"{parties[0]} cannot be reached" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--place", "judge"), "there is no place for"),
        (("--place", "a", "--place", "a"), "places cannot be told apart"),
        (("--place", "operator"), "places cannot be told apart"),
    ],
)
def test_places_that_cannot_be_used(arguments: tuple[str, ...], said: str, typed: Any, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(TEXT)
    assert said in typed.fails("prepare", "script.toml", "nodes", *arguments, cwd=tmp_path, code=2)
    assert not (tmp_path / "nodes").exists()


def test_another_simulation_is_left_alone(typed: Any, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(TEXT)
    typed.json("prepare", "script.toml", "nodes", cwd=tmp_path)
    (tmp_path / "script.toml").write_text(f"{TEXT}\n# changed\n")
    line = typed.fails("prepare", "script.toml", "nodes", cwd=tmp_path, code=2)
    assert "another simulation is prepared" in line
    assert "docker compose down --volumes" in line
    (tmp_path / "nodes" / "operator" / "prepared").unlink()
    assert "is in use" in typed.fails("prepare", "script.toml", "nodes", cwd=tmp_path, code=2)


def test_a_script_without_parties(typed: Any, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(session_text(parse_script(TEXT)))
    assert "has no parties" in typed.fails("prepare", "script.toml", "nodes", cwd=tmp_path, code=2)
