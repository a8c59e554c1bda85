"""Sessions of a node that does not run are read from what it keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comity.node.garbage import exclusive


@pytest.mark.parametrize("way", ["--node .", "--state state", "--config node.toml", ""])
def test_it_is_named_alike_everywhere(
    worked: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(worked)
    listed = typed("sessions", *way.split(), "--json")
    (session,) = json.loads(listed.out)["sessions"]
    assert (session["session"], session["state"], session["rounds_finished"]) == ("s-1", "stopped", 1)
    shown = json.loads(typed("show", *way.split(), "--json").out)
    assert (shown["session"], shown["contract"]["seed"]) == ("s-1", 7)
    ledger = json.loads(typed("ledger", "show", *way.split(), "--json").out)
    assert ledger["charges"] == []


def test_it_is_read_while_its_state_is_locked_and_stays_as_it_is(worked: Path, typed: Callable[..., Any]) -> None:
    before = {each: each.read_bytes() for each in worked.rglob("*") if each.is_file()}
    with exclusive(worked / "state"):
        done = typed("sessions", "--node", worked)
    assert done.code == 0, done.error
    assert "stopped" in done.out
    (worked / "state" / "lock").unlink(missing_ok=True)
    after = {each: each.read_bytes() for each in worked.rglob("*") if each.is_file()}
    assert {each: data for each, data in after.items() if each in before} == before


def test_its_report_is_made(worked: Path, typed: Callable[..., Any], tmp_path: Path) -> None:
    done = typed("report", "--node", worked, "--out", tmp_path / "page.html", "--json")
    assert done.code == 0, done.error
    assert "s-1" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_socket_that_was_left_behind_hides_nothing(worked: Path, typed: Callable[..., Any]) -> None:
    (worked / "state" / "control.sock").touch()
    assert "s-1" in typed("sessions", "--node", worked).out


def test_its_configuration_says_where_its_state_is(worked: Path, typed: Callable[..., Any]) -> None:
    (worked / "state").rename(worked / "kept")
    config = worked / "node.toml"
    config.write_text(config.read_text().replace('state_dir = "state"', 'state_dir = "kept"') + "\nmistake = 1\n")
    assert "s-1" in typed("sessions", "--node", worked).out


def test_where_nothing_is_kept_a_line_says_where_it_looked(tmp_path: Path, typed: Callable[..., Any]) -> None:
    done = typed("sessions", "--node", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("comity: no node runs here, and none has kept anything: expected a control socket")


def test_what_needs_a_node_that_runs_says_so(worked: Path, typed: Callable[..., Any]) -> None:
    done = typed("resume", "s-1", "--node", worked)
    assert done.code == 2
    assert done.error.startswith("comity: no node runs here: expected a control socket at")


def test_a_node_is_named_once(worked: Path, typed: Callable[..., Any]) -> None:
    done = typed("show", "--node", worked, "--state", worked / "state")
    assert done.code == 2
    assert "the node is named in several ways" in done.error


def test_a_folder_may_be_called_like_an_address(worked: Path, typed: Callable[..., Any]) -> None:
    folder = worked.rename(worked.parent / "alice@corp.example:5600")
    assert "s-1" in typed("sessions", "--node", folder).out
