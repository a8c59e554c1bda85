"""`comity node`: becomes the daemon."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from comity.errors import InvalidValue
from comity.node.validation import read_toml
from comity.protocol.registry import roles
from comity.suggestions import did_you_mean


def run_node(role: str, config: Path, log_level: str) -> None:
    """Replaces this process by the role's daemon, so that signals reach it as they are.

    Raises:
        InvalidValue: There is no such role.
        MissingFile: There is no configuration.
    """
    known = roles()
    configured = read_toml(config).get("role", "") if role in {"", *known} else ""
    role = role or str(configured)
    if role not in known:
        action = did_you_mean(role, known, "name one of these, or set role in the configuration")
        raise InvalidValue("no such role", expected=" or ".join(known), received=role or "none", action=action)
    arguments = [*daemon_of(role), "--config", str(config), "--log-level", log_level]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - this very interpreter, with a module of ours


def daemon_of(role: str) -> list[str]:
    """How the interpreter starts a role's daemon: its own module, where it has one that says what it must be given."""
    own = f"{role}_node"
    return ["-m", own] if find_spec(own) is not None else ["-m", "comity.node", role]
