"""The papers' figures and tables as scripts, and what every demo shows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from comity.errors import InvalidValue

if TYPE_CHECKING:
    from comity.contract import Json
    from comity.node.sessions.script import Script

DEMOS = ("assisted_learning", "gradient-rewards", "assisted-rl")
"""Protocols that have a demo, the default first."""


def demo_script(protocol: str, seed: int) -> str:
    """The script of a protocol's demo, as TOML.

    Raises:
        InvalidValue: There is no demo of this protocol.
    """
    text: str = _module(protocol).script(seed)
    return text


def demo_sessions(protocol: str) -> int:
    """How many sessions the demo of a protocol runs, one after the other, with seeds that follow."""
    sessions: int = getattr(_module(protocol), "SESSIONS", 1)
    return sessions


def _module(demo: str) -> ModuleType:
    if demo not in DEMOS:
        raise InvalidValue("no such demo", expected=", ".join(DEMOS), received=demo, action="name one of these")
    name = "assisted_learning.demo_rl" if demo == "assisted-rl" else f"{demo.replace('-', '_')}.demo"
    return import_module(f"comity.experiments.{name}")


def with_baselines(script: Script, metrics: Mapping[str, Json]) -> dict[str, Json]:
    """Trains what a protocol is compared with, on a script's own parties, and adds it to a session's metrics."""
    module = import_module(f"comity.experiments.{script.session.protocol}.baselines")
    added: dict[str, Json] = module.added(script, metrics)
    return added
