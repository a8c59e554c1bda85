"""Which node a command is about: one that runs, or what a stopped one keeps."""

from __future__ import annotations

import os
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comity.errors import InvalidValue, MissingFile
from comity.store.places import FILE_NAME, store_url
from comity.transport.addresses import socket_url

if TYPE_CHECKING:
    from comity.node.control_client import ControlClient
    from comity.node.state_reader import StateReader
    from comity.transport.identity import Identity

CONFIG = "node.toml"
_SOCKET, _UNIX = "control.sock", "unix:"
_VARIABLE = "COMITY_NODE"


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """A node that was named in one of the ways that every command takes.

    Attributes:
        name: Its folder, its `state_dir`, `unix:PATH`, or `PARTY@HOST:PORT`; empty where it was not named so.
        config: Its configuration file; None where it was not named so.
        state: Its `state_dir`; None where it was not named so.
        operator: Folder of the operator's key and certificate, for a control port; empty for a socket.
    """

    name: str = ""
    config: Path | None = None
    state: Path | None = None
    operator: str = ""

    def __post_init__(self) -> None:
        """Checks that it was named once.

        Raises:
            InvalidValue: It was named in several ways.
        """
        given = [f"--{way}" for way, value in self._ways.items() if value]
        if len(given) > 1:
            raise InvalidValue(
                "the node is named in several ways",
                expected="one of --node, --config and --state",
                received=" and ".join(given),
                action="leave out the others",
            )

    @property
    def _ways(self) -> dict[str, object]:
        return {"node": self.name, "config": self.config, "state": self.state}

    @property
    def is_named(self) -> bool:
        """Whether the command line names it, and not the environment or nothing."""
        return any(self._ways.values())

    @property
    def _where(self) -> str:
        """Its folder or its address: as it was named, or as the environment says; this folder, if neither does."""
        return self.name or os.environ.get(_VARIABLE, "") or "."

    @property
    def _is_remote(self) -> bool:
        if self.config is not None or self.state is not None:
            return False
        # A folder of such a name goes before an address.
        return "@" in self._where and self._socket is None and not Path(self._where).exists()

    @property
    def _socket(self) -> Path | None:
        """Its control socket, where that is how it is named."""
        if self.config is not None or self.state is not None:
            return None
        path = Path(self._where.removeprefix(_UNIX))
        return path if self._where.startswith(_UNIX) or path.is_socket() else None

    @property
    def folder(self) -> Path:
        """Where its configuration is.

        Raises:
            InvalidValue: It is named by something else.
        """
        return self.config_file.parent

    @property
    def config_file(self) -> Path:
        """Its configuration, whether there is one or not.

        Raises:
            InvalidValue: It is named by something else.
        """
        if self.config is not None:
            return self.config
        if self.state is not None or self._is_remote or self._socket is not None:
            raise InvalidValue(
                "the node's configuration is needed",
                expected="--node with the node's folder, or --config with its file",
                received=self.option.strip() or self._where,
                action="name it on the machine where the node is",
            )
        return Path(self._where) / CONFIG

    @property
    def state_dir(self) -> Path:
        """What the node keeps, whether there is anything or not.

        Raises:
            InvalidValue: It is on another machine.
        """
        if self.state is not None:
            return self.state
        if self._socket is not None:
            return self._socket.parent
        if self._is_remote:
            raise InvalidValue(
                "what the node keeps is needed",
                expected="the node's folder",
                received=self._where,
                action="run this on the machine where the node is",
            )
        file = self.config_file
        configured = os.environ.get(f"{_VARIABLE}_STATE_DIR") or self._configured("state_dir")
        if configured:
            return file.parent / configured
        here = any((file.parent / each).exists() for each in (FILE_NAME, _SOCKET))
        return file.parent if here else file.parent / "state"

    @property
    def store_url(self) -> str:
        """Where its ledger and sessions are, whether there is anything or not.

        Raises:
            InvalidValue: It is on another machine.
        """
        state = self.state_dir
        if self.state is not None or self._socket is not None:
            return store_url(state)
        return os.environ.get(f"{_VARIABLE}_STORE") or self._configured("store") or store_url(state)

    def _configured(self, key: str) -> str:
        """A setting of its configuration, where that can be read at all: a command that only reads minds no other mistake in it."""
        from comity.node.validation import read_toml

        try:
            value = read_toml(self.config_file).get(key)
        except (InvalidValue, MissingFile):
            if self.config is not None:
                raise
            return ""
        return value if isinstance(value, str) else ""

    def connect(self) -> ControlClient:
        """A connection to its operator's service.

        Raises:
            MissingFile: No node runs there, or the operator has no key.
            InvalidValue: It cannot be reached like this.
        """
        from comity.node.control_client import ControlClient

        if self._is_remote:
            return ControlClient(
                self._where, operator_identity(Path(self.operator or os.environ.get("COMITY_OPERATOR", ".")))
            )
        place = self._socket or self.state_dir / _SOCKET
        if self._socket is None and not place.exists():
            raise MissingFile(
                "no node runs here",
                expected=f"a control socket at {place}",
                received="nothing",
                action="start the node, or name its folder with --node",
            )
        return ControlClient(socket_url(place))

    def read(self) -> ControlClient | StateReader:
        """What knows of its sessions: the node, or, where it does not run, what it keeps.

        Raises:
            MissingFile: There is neither.
            InvalidValue: It cannot be reached like this.
        """
        if self._is_remote:
            return self.connect()
        place = self._socket or self.state_dir / _SOCKET
        if _answers(place):
            return self.connect()
        url = self.store_url
        if url == store_url(self.state_dir) and not (self.state_dir / FILE_NAME).is_file():
            if self._socket is not None or place.exists():
                # What it says of the socket says more.
                return self.connect()
            raise MissingFile(
                "no node runs here, and none has kept anything",
                expected=f"a control socket or {FILE_NAME} in {self.state_dir}",
                received="neither",
                action="name the node's folder with --node, or its state_dir with --state",
            )
        from comity.node.state_reader import StateReader

        return StateReader(url)

    @property
    def option(self) -> str:
        """What to add to a command that is to reach the same node, to be pasted."""
        operator = f" --operator {shlex.quote(self.operator)}" if self.operator else ""
        return "".join(f" --{way} {shlex.quote(str(value))}" for way, value in self._ways.items() if value) + operator


def _answers(path: Path) -> bool:
    """Whether a process listens at a socket; one that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def latest(node: ControlClient | StateReader) -> str:
    """The session that a node entered last.

    Raises:
        InvalidValue: There is none.
    """
    sessions = node.sessions()
    if not sessions:
        raise InvalidValue(
            "this node has no session yet",
            expected="a session",
            received="none",
            action="comity run SCRIPT, or comity open SCRIPT, begins one at the node whose session it is",
        )
    return sessions[-1].session


def operator_identity(folder: Path) -> Identity:
    """Who drives nodes from this folder, made by `comity init operator`.

    Raises:
        MissingFile: There is no key, or no certificate.
    """
    from comity.transport.identity import Identity

    certificates = [each for each in folder.glob("*.pem") if each.name != "key.pem"]
    if not (folder / "key.pem").is_file() or len(certificates) != 1:
        raise MissingFile(
            f"{folder} is no operator's folder",
            expected="key.pem and one certificate",
            received=", ".join(sorted(each.name for each in folder.glob("*.pem"))) or "neither",
            action="make one with comity init operator, or name it with --operator",
        )
    return Identity(certificates[0].stem, certificates[0], folder / "key.pem", folder / "trust")
