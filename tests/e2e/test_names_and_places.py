"""Names of parties, addresses and folders as people choose them: nodes are set up, reached and read whatever they are called."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from comity.node.config import NodeConfig, load_config
from comity.node.daemon import Node
from tests.e2e.network import in_a_thread


def version_6() -> bool:
    """Whether this machine has an IPv6 address of its own."""
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a short name, since sockets are in it."""
    with TemporaryDirectory(prefix="e2e-") as folder:
        yield Path(folder)


@contextmanager
def served(folder: Path) -> Iterator[Node]:
    """The provider whose files are in a folder."""
    config = load_config(NodeConfig, folder / "node.toml")
    values = {name: getattr(config, name) for name in config.model_fields_set}
    with in_a_thread("provider", values) as node:
        yield node


def init(typed: Any, folder: Path, role: str, party: str, *more: object) -> dict[str, Any]:
    made: dict[str, Any] = typed.json("init", role, folder.name, "--party", party, *more, cwd=folder.parent)
    return made


HOSTS = {"v4": "127.0.0.1", "v6": "[::1]", "by name": "localhost"}
NAMES = {"like an address": "10.20.30.40", "underscore": "hospital_a", "64 letters": "h" * 64}
NAMES |= {"ends with a dot": "hospital.", "number": "12345", "capitals": "Hospital-A"}
CASES = [pytest.param("hospital", host, id=each) for each, host in HOSTS.items()]
CASES += [pytest.param(name, HOSTS["v4"], id=each, marks=pytest.mark.slow) for each, name in NAMES.items()]
FOLDERS = ["50%20off", "ward#3", "alice@corp.example"]
OTHER_FOLDERS = ["with space", "a?b", "clinic=ward:1", "Straße"]


@pytest.mark.parametrize(("party", "host"), CASES)
def test_a_party_is_reached_whatever_its_name_and_its_address(root: Path, typed: Any, party: str, host: str) -> None:
    if host == HOSTS["v6"] and not version_6():
        pytest.skip("this machine has no IPv6")
    init(typed, root / "h", "provider", party, "--allow", "clinic", "--listen", f"{host}:0")
    init(typed, root / "l", "learner", "clinic", "--peer", f"{party}={host}:1")
    typed.json("trust", "add", party, root / "h" / f"{party}.pem", "--node", "l", cwd=root)
    typed.json("trust", "add", "clinic", root / "l" / "clinic.pem", "--node", "h", cwd=root)
    config = root / "l" / "node.toml"
    with served(root / "h") as node:
        config.write_text(config.read_text().replace(f'"{host}:1"', f'"{node.address}"'))
        done = typed("check", cwd=root / "l")
    assert done.returncode == 0, done.stdout
    assert f"peer {party}: certificate each accepts the other's" in " ".join(done.stdout.split())


def test_an_address_of_version_6_without_brackets_is_refused_by_who_sets_a_node_up(root: Path, typed: Any) -> None:
    line = typed.fails("init", "provider", "h", "--party", "hospital", "--listen", "::1:5500", cwd=root, code=2)
    assert "write [::1]:5500" in line
    assert "\n" not in line
    assert not (root / "h" / "node.toml").exists()


@pytest.mark.parametrize("name", [*FOLDERS, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHER_FOLDERS)])
def test_a_node_serves_in_a_folder_of_any_name_and_is_found_there(root: Path, typed: Any, name: str) -> None:
    home = root / name
    init(typed, home, "provider", "hospital", "--allow", "clinic", "--listen", "127.0.0.1:0")
    with served(home):
        for place in (home, home / "state", Path(name)):
            assert typed.json("sessions", "--node", place, cwd=root)["sessions"] == []
        # Nobody's card is there yet, and nothing else is wrong.
        rows = json.loads(typed("check", "--json", cwd=home).stdout)["rows"]
        assert [row["check"] for row in rows if row["verdict"] == "failed"] == ["trust"]
