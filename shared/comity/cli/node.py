"""`comity node`: becomes the daemon."""

from __future__ import annotations

import difflib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from comity.errors import InvalidValue

ROLES = ("learner", "provider")
"""Roles that have a daemon; each is the module `<role>_node`."""


def run_node(role: str, config: Path, log_level: str) -> None:
    """Replaces this process by the role's daemon, so that signals reach it as they are.

    Raises:
        InvalidValue: There is no such role.
    """
    if role not in ROLES or find_spec(f"{role}_node") is None:
        near = difflib.get_close_matches(role, ROLES, n=1)
        action = f"did you mean {near[0]}?" if near else "the role is that of comity init, the first line of node.toml"
        raise InvalidValue("no such role", expected=" or ".join(ROLES), received=role, action=action)
    arguments = ["-m", f"{role}_node", "--config", str(config), "--log-level", log_level]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - this very interpreter, with a module of ours
