"""Files that people name on the command line."""

from __future__ import annotations

from pathlib import Path

from comity.errors import MissingFile


def read_script(path: Path) -> str:
    """The text of a script.

    Raises:
        MissingFile: It is not there, or is a folder.
    """
    if not path.is_file():
        received = "a folder" if path.is_dir() else "nothing"
        raise MissingFile(
            f"{path} cannot be read",
            expected="a script in TOML",
            received=received,
            action="comity demo --print-script prints one",
        )
    return path.read_text(encoding="utf-8")


def control_url(node: str) -> str:
    """The control socket of a node that somebody named by its URL, its `state_dir` or the folder that holds it.

    Raises:
        MissingFile: There is none.
    """
    if node.startswith("unix:"):
        return node
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
