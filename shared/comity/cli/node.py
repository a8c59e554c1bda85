"""`comity node`: becomes the daemon."""

from __future__ import annotations

import difflib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from comity.errors import InvalidValue
from comity.node.validation import read_toml

ROLES = ("learner", "provider", "client", "server")
"""Roles that have a daemon; each is the module `<role>_node`."""


def run_node(role: str, config: Path, log_level: str) -> None:
    """Replaces this process by the role's daemon, so that signals reach it as they are.

    Raises:
        InvalidValue: There is no such role.
        MissingFile: There is no configuration.
    """
    configured = read_toml(config).get("role", "") if role in {"", *ROLES} else ""
    role = role or str(configured)
    if role not in ROLES or find_spec(f"{role}_node") is None:
        near = difflib.get_close_matches(role, ROLES, n=1)
        action = f"did you mean {near[0]}?" if near else "name one of these, or set role in the configuration"
        raise InvalidValue("no such role", expected=" or ".join(ROLES), received=role or "none", action=action)
    arguments = ["-m", f"{role}_node", "--config", str(config), "--log-level", log_level]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - this very interpreter, with a module of ours
