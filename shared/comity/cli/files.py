"""Files that people name on the command line."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from comity.errors import InvalidValue, MissingFile
from comity.node.validation import parse_toml


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
    if not path.is_file():
        received = "a folder" if path.is_dir() else "nothing"
        raise MissingFile(
            f"{path} cannot be read",
            expected="a script in TOML",
            received=received,
            action="comity demo --print-script prints one",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InvalidValue(
            f"{path} cannot be read", expected="a script in TOML, in UTF-8", received=error, action="save it as text"
        ) from error
    if rounds is None:
        return text
    values = parse_toml(text, str(path))
    if isinstance(values.get("session"), dict):
        values["session"]["rounds"] = rounds
    return tomlkit.dumps(values)
