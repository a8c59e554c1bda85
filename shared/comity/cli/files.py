"""Files that people name on the command line."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from comity.node.validation import parse_toml, read_text


def read_script(path: Path, rounds: int | None = None) -> str:
    """The text of a script.

    Args:
        path: The script.
        rounds: How many rounds it is to buy; None for what it says. All else is for the node to judge, which may be of
            another version.

    Raises:
        MissingFile: It is not there, or is a folder.
        InvalidValue: It is no text, or no TOML.
    """
    text = read_text(path, "a script in TOML", "comity demo --print-script prints one")
    if rounds is None:
        return text
    values = parse_toml(text, str(path))
    if isinstance(values.get("session"), dict):
        values["session"]["rounds"] = rounds
    return tomlkit.dumps(values)
