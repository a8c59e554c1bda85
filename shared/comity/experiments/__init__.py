"""The papers' figures and tables as scripts, and what every demo shows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from comity.errors import InvalidValue

if TYPE_CHECKING:
    from comity.node.script import Script

DEMOS = ("assisted_learning",)
"""Protocols that have a demo, the default first."""


def demo_script(protocol: str, seed: int) -> str:
    """The script of a protocol's demo, as TOML.

    Raises:
        InvalidValue: There is no demo of this protocol.
    """
    if protocol not in DEMOS:
        raise InvalidValue("no such demo", expected=", ".join(DEMOS), received=protocol, action="name one of these")
    text: str = import_module(f"comity.experiments.{protocol}.demo").script(seed)
    return text


def baselines(script: Script) -> dict[str, float | None]:
    """Trains what a protocol is compared with, on a script's own parties, and returns the metrics by name."""
    metrics: dict[str, float | None] = import_module(f"comity.experiments.{script.session.protocol}.baselines").run(
        script
    )
    return metrics
