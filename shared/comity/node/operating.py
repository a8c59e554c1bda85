"""Which node an operator means, and the connection to it."""

from __future__ import annotations

from pathlib import Path

from comity.errors import MissingFile
from comity.node.control_client import ControlClient
from comity.transport.identity import Identity


def control_of(node: str, operator: Path) -> ControlClient:
    """A connection to a node.

    Args:
        node: Its folder, its `state_dir`, `unix:PATH`, or `PARTY@HOST:PORT`.
        operator: Folder of the operator's key and certificate, for a control port.

    Raises:
        MissingFile: No node runs there, or the operator has no key.
        InvalidValue: It cannot be reached like this.
    """
    if "@" not in node:
        return ControlClient(control_url(node))
    return ControlClient(node, operator_identity(operator))


def control_url(node: str) -> str:
    """The control socket of a node that somebody named by its URL, its `state_dir` or the folder that holds it.

    Raises:
        MissingFile: There is none.
    """
    if node.startswith("unix:"):
        return node
    if Path(node).is_socket():
        return f"unix:{node}"
    places = [Path(node) / "control.sock", Path(node) / "state" / "control.sock"]
    socket = next((each for each in places if each.exists()), None)
    if socket is None:
        raise MissingFile(
            "no node runs here",
            expected=f"a control socket at {places[0]} or {places[1]}",
            received="nothing",
            action="start the node, or name its folder with --node",
        )
    return f"unix:{socket}"


def operator_identity(folder: Path) -> Identity:
    """Who drives nodes from this folder, made by `comity init operator`.

    Raises:
        MissingFile: There is no key, or no certificate.
    """
    certificates = [each for each in folder.glob("*.pem") if each.name != "key.pem"]
    if not (folder / "key.pem").is_file() or len(certificates) != 1:
        raise MissingFile(
            f"{folder} is no operator's folder",
            expected="key.pem and one certificate",
            received=", ".join(sorted(each.name for each in folder.glob("*.pem"))) or "neither",
            action="make one with comity init operator, or name it with --operator",
        )
    return Identity(certificates[0].stem, certificates[0], folder / "key.pem", folder / "trust")
