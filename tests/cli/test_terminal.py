"""Terminals, files and file systems that are not as on a developer's machine: containers, PowerShell, old locales."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comity.node.setup.init import NodeChoices, make_node


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's folder, as `comity init` makes it."""
    make_node(tmp_path / "hospital", NodeChoices("provider", "hospital", allow=("clinic",)))
    return tmp_path / "hospital"


def typed(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command, and looks that no traceback reaches who typed it."""
    code = "from comity.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, check=False, timeout=120)
    assert b"Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
def test_a_terminal_that_cannot_show_a_mark_shows_another(node: Path, encoding: str) -> None:
    done = typed("check", cwd=node, PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    # No peer's card is there yet: the row says what to type.
    line = next(each for each in done.stdout.decode(encoding).splitlines() if "no party is trusted" in each)
    assert line.endswith("comity trust add clinic clinic.pem")
    assert line[0] == ("✗" if encoding == "utf-8" else "?")


@pytest.mark.parametrize("name", ["node.toml", "session.toml"])
def test_a_byte_order_mark_is_no_part_of_a_file(node: Path, name: str) -> None:
    (node / "session.toml").write_text('[session]\nprotocol = "nope"\nacceptors = ["hospital"]\nrounds = 1\n')
    path = node / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    done = typed("trust", "list", cwd=node) if name == "node.toml" else typed("simulate", name, cwd=node)
    # The script is read, and refused for what it says.
    assert done.returncode == (0 if name == "node.toml" else 3), done.stderr
    assert b"cannot be read" not in done.stderr


@pytest.mark.parametrize("name", ["node.toml", "session.toml"])
def test_a_file_in_utf_16_is_one_line_that_says_so(node: Path, name: str) -> None:
    (node / name).write_bytes('party = "x"\n'.encode("utf-16"))
    done = typed("node", cwd=node) if name == "node.toml" else typed("simulate", name, cwd=node)
    line = done.stderr.decode()
    assert (done.returncode, line.count("\n")) == (2, 1)
    assert f"{name} cannot be read: expected TOML in UTF-8" in line
    assert "UTF-16" in line


@pytest.mark.parametrize("state", ["~no-such-user/state", "/proc/comity/state"])
def test_a_state_dir_that_cannot_be_had_is_one_line(node: Path, state: str) -> None:
    config = node / "node.toml"
    lines = config.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("state_dir"))
    config.write_text("\n".join([*lines[:at], f"state_dir = {json.dumps(state)}", *lines[at + 1 :]]))
    done = typed("node", cwd=node)
    assert (done.returncode, done.stderr.decode().count("\n")) == (2, 1), done.stderr
    assert state.removesuffix("/state") in done.stderr.decode()
    # Without a name and without a home, as many containers run what they are given.
    assert typed("check", cwd=node, HOME="/nonexistent").returncode == 2
