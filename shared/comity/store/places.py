"""Where a node's store is. Light: whoever only says so needs no database."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

FILE_NAME = "comity.db"
"""The store's name in a node's `state_dir`."""


def store_url(state_dir: Path) -> str:
    """Where a node's store is when its configuration names no other place."""
    return f"sqlite:///{quote(str(state_dir / FILE_NAME))}"
