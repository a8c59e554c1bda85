"""What the studies of all protocols share: demos, figures and tables, scales, data sets, charts, kills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from comity.errors import InvalidValue
from comity.experiments.studies import demo_named, demos, loaded, studies_of, unknown

if TYPE_CHECKING:
    from comity.contract import Json
    from comity.node.sessions.script import Script


def demo_names() -> list[str]:
    """All demos, the default first."""
    return list(demos())


def demo_script(name: str, seed: int, *, guarded: bool = False, switches: Sequence[str] = ()) -> str:
    """The script of a demo, as TOML.

    Args:
        name: The demo, with hyphens or underscores; empty for the first.
        seed: Seed of its data, weights and batches.
        guarded: Whether to take the one with a leak guard.
        switches: What else is asked of it; see `Demo.switches`.

    Raises:
        InvalidValue: There is no such demo, or none with a leak guard, or it has no such switch.
    """
    found, demo = demo_named(name)
    if guarded and not demo.guarded:
        known = ", ".join(each for each, one in demos().items() if one.guarded)
        raise InvalidValue(f"{found} has no demo of a leak guard", expected=known or "none", received=found)
    for switch in switches:
        if switch not in demo.switches:
            raise unknown(
                f"switch of the demo {found}", switch, demo.switches, expected=", ".join(demo.switches) or "none"
            )
    asked = dict.fromkeys(switches, True)
    text: str = loaded(demo.guarded if guarded else demo.script)(seed, **asked)
    return text


def demo_sessions(name: str) -> int:
    """How many sessions a demo runs, one after the other, with seeds that follow."""
    return demo_named(name)[1].sessions


def with_baselines(script: Script, metrics: Mapping[str, Json]) -> dict[str, Json]:
    """Trains what a protocol is compared with, on a script's own parties, and adds it to a session's metrics."""
    baselines = studies_of(script.session.protocol.replace("-", "_")).baselines
    if not baselines:
        return dict(metrics)
    added: dict[str, Json] = loaded(baselines)(script, metrics)
    return added
