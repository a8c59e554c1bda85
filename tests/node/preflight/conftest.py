"""A node's folder as an operator has it, to be broken in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import tomlkit

from comity.node.preflight import Context, Row, exit_code, preflight
from comity.transport.certificates import Authority
from comity.transport.identity import Identity

DATA = {"source": "digits", "per_class": 20}
POLICY = {"egress": ["contract", "vote"]}


@dataclass
class Home:
    """A node's folder.

    Attributes:
        folder: Configuration, certificates and state.
        identity: The party's certificate.
        values: What the configuration says.
    """

    folder: Path
    identity: Identity
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Its `state_dir`, made if it is not there."""
        path = self.folder / "state"
        path.mkdir(exist_ok=True)
        return path

    def check(self, *, role: str = "", script: str | None = None) -> Found:
        """Writes the configuration as it is now, and checks the node."""
        path = self.folder / "node.toml"
        path.write_text(tomlkit.dumps(self.values))
        if script is not None:
            (self.folder / "session.toml").write_text(script)
        named = self.folder / "session.toml" if script is not None else None
        return Found(list(preflight(Context(path, role, named))))


@dataclass
class Found:
    """What a preflight found."""

    rows: list[Row]

    @property
    def code(self) -> int:
        """What the command would exit with."""
        return exit_code(self.rows)

    def __getitem__(self, check: str) -> Row:
        """The one row of a check."""
        (row,) = [row for row in self.rows if row.check == check]
        return row

    def failed(self) -> list[str]:
        """The checks that failed."""
        return [row.check for row in self.rows if row.verdict == "failed"]

    def only(self, check: str, *parts: str, code: int = 2) -> Row:
        """The row of a check, which alone failed, said what is wrong, and how to fix it."""
        assert self.failed() == [check]
        row = self[check]
        for part in parts:
            assert part in f"{row.found}; {row.action}"
        assert row.action
        assert self.code == code
        return row


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Who certifies clinic and hospital."""
    return Authority.create()


@pytest.fixture
def make_home(authority: Authority) -> Iterator[Callable[..., Home]]:
    """Lays out a node's folder, in a place with a name short enough for its socket."""
    with TemporaryDirectory(prefix="check-") as folder:

        def make(party: str, *, by: Authority = authority, **values: Any) -> Home:
            home = Path(folder) / party
            identity = by.issue(party, home / "tls")
            tls = {name: f"tls/{name}.pem" for name in ("certificate", "key", "trust")}
            usual = {"state_dir": "state", "tls": tls, "data": DATA, "policy": dict(POLICY)}
            return Home(home, identity, {"party": party, **usual, **values})

        yield make


@pytest.fixture
def teacher(make_home: Callable[..., Home]) -> Home:
    """The hospital's node; nothing is wrong with it."""
    return make_home("hospital", role="teacher", listen="127.0.0.1:0")


@pytest.fixture
def student(make_home: Callable[..., Home], serve: Callable[..., Any], authority: Authority) -> Home:
    """The clinic's node, whose one peer answers; nothing is wrong with it."""
    home = make_home("clinic", role="student")
    peer = authority.issue("hospital", home.folder.parent / "peer")
    home.values["peers"] = {"hospital": {"address": serve(identity=peer).address}}
    return home
