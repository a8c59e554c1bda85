"""A node's folder that was worked in, and the command in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comity.cli.main import main
from comity.contract import Contract, Membership
from comity.node.sessions.initiator import stored
from comity.node.setup.init import NodeChoices, make_node
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import Record


@pytest.fixture
def worked(
    tmp_path: Path,
    make_contract: Callable[..., Contract],
    make_member: Callable[[str, str, int], Membership],
) -> Path:
    """The folder of a node that stopped in the middle of a session."""
    folder = tmp_path / "clinic"
    make_node(folder, NodeChoices("learner", "clinic", peers={"hospital": "127.0.0.1:1"}))
    own, peer = make_member("clinic", "student", 10), make_member("hospital", "teacher", 20)
    with closing(SqlStore(store_url(folder / "state"), party="clinic")) as store:
        store.save(stored(make_contract(), own, peer))
        store.append("s-1", Record("finished", 1, {"loss": 0.5}))
    return folder


@dataclass(frozen=True)
class Done:
    """What a command ended with.

    Attributes:
        code: Its exit code.
        out: Its standard output.
        error: Its standard error.
    """

    code: int
    out: str
    error: str


class Terminal(io.TextIOWrapper):
    """A stream of some encoding, as a terminal or a pipe gives one."""

    def __init__(self, encoding: str) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, errors="strict", write_through=True)

    @property
    def text(self) -> str:
        """What was written."""
        self.flush()
        return self.bytes.getvalue().decode(self.encoding)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`comity ARGUMENTS` in this process, with a terminal of an encoding."""

    def run(*arguments: Any, encoding: str = "utf-8") -> Done:
        out, error = Terminal(encoding), Terminal(encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["comity", *map(str, arguments)])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", error)
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        return Done(code, out.text, error.text)

    return run
