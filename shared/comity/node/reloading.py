"""What a node reads again of its configuration while it runs, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from comity.node.config import NodeConfig
from comity.session.limits import RESTART_ONLY

REREAD = ("policy", "limits", "peers", "retry", "compare", "audit", "drain_s")
"""What of a configuration is read again. The files that trust is made of are read at every handshake, whatever is said here."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reading a configuration again.

    Attributes:
        applied: Keys whose new values are in force.
        restart: Keys that have new values, which wait for a restart.
        trusted: Parties that are trusted now; empty where one authority vouches for all.
    """

    applied: tuple[str, ...]
    restart: tuple[str, ...]
    trusted: tuple[str, ...] = ()


def reload(config: NodeConfig, latest: NodeConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Takes over into a configuration what may change while a node runs.

    Args:
        config: The configuration that the node goes by.
        latest: The same file, read again.

    Returns:
        Keys that were taken over, and keys that wait for a restart.
    """
    applied: list[str] = []
    restart: list[str] = []
    for key in changed(config, latest):
        section, _, name = key.partition(".")
        is_reread = section in REREAD and not (section == "limits" and name in RESTART_ONLY)
        (applied if is_reread else restart).append(key)
    for section in REREAD:
        value = getattr(latest, section)
        if section == "limits":
            value = value.model_copy(update={name: getattr(config.limits, name) for name in RESTART_ONLY})
        setattr(config, section, value)
    return tuple(applied), tuple(restart)


def changed(config: BaseModel, latest: BaseModel, above: str = "") -> Iterator[str]:
    """Names what differs between two configurations, as `section.key`; never a value, which may be secret."""
    for name in type(config).model_fields:
        old, new = getattr(config, name), getattr(latest, name)
        if old == new:
            continue
        if isinstance(old, BaseModel) and type(old) is type(new) and not above:
            yield from changed(old, new, f"{name}.")
        elif isinstance(old, Mapping) and isinstance(new, Mapping) and not above:
            yield from (f"{name}.{key}" for key in sorted({*old, *new}) if old.get(key) != new.get(key))
        else:
            yield f"{above}{name}"
