"""The token without which nobody is let in."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from comity.errors import StorageFailed

FILE_NAME = "web.token"
"""Its name in a node's `state_dir`."""

_BYTES = 24


def new_token() -> str:
    """A token that nobody guesses, of characters that need no quoting in an address."""
    return secrets.token_urlsafe(_BYTES)


def token_in(folder: Path) -> str:
    """The token that is kept in a folder, so that an address outlives a restart; made at first use, for its owner alone.

    Raises:
        StorageFailed: It cannot be read or made.
    """
    path = folder / FILE_NAME
    try:
        if not path.exists():
            part = path.with_suffix(".part")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
                file.write(new_token())
            part.replace(path)
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageFailed(
            f"{path} cannot be used",
            expected="the token of the node's pages, or a folder to make it in",
            received=getattr(error, "strerror", None) or error,
            action="make it readable and writable for the node's user, or remove it for a new one",
        ) from error
