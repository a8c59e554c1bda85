"""Sessions in small, one file for each registered protocol: what must hold whatever the protocol is shown with them.

`tests/protocols/NAME/sessions.py` has `SESSIONS`: by name what `Session` says, the plain one first. A protocol that is
registered and has no such file fails every suite that runs over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from comity.node.sessions.script import Script, parse_script
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol, protocol_names, spelled

PROTOCOLS = tuple(protocol_names())
"""Every registered protocol, those of packages too."""

_FOLDER = Path(__file__).parent / "protocols"


@dataclass(frozen=True)
class Session:
    """A session that takes a second in one process.

    Attributes:
        text: Its script, with a table for each party. Data are digits: suites put other samples of their shape in.
        repeated: Most steps of training that whoever was killed does again.
    """

    text: str
    repeated: int = 0

    @property
    def script(self) -> Script:
        """The script."""
        return parse_script(self.text)

    @property
    def definition(self) -> ProtocolDefinition:
        """Its protocol."""
        return protocol(self.script.session.protocol)


def sessions_of(name: str) -> Mapping[str, Session]:
    """A protocol's sessions by name, the plain one first.

    Raises:
        AssertionError: Nobody wrote them.
    """
    name = spelled(name)
    file = _FOLDER / name / "sessions.py"
    assert file.is_file(), f"the protocol {name} is registered and has no {file.relative_to(_FOLDER.parents[1])}"
    found: Mapping[str, Session] = import_module(f"tests.protocols.{name}.sessions").SESSIONS
    assert found, f"{file} has no session"
    for each in found.values():
        assert spelled(each.script.session.protocol) == name, f"{file} has a session of {each.script.session.protocol}"
    return found


def plain(name: str) -> Session:
    """A protocol's plain session."""
    return next(iter(sessions_of(name).values()))


def variants() -> list[tuple[str, str]]:
    """Protocol and session, for all sessions of all protocols; those of one without any are found where they are looked up."""
    return [
        (name, session)
        for name in PROTOCOLS
        for session in (sessions_of(name) if (_FOLDER / name / "sessions.py").is_file() else ["plain"])
    ]
