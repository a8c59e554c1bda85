"""The protocols that this installation has."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from comity.errors import UnsupportedProtocol
from comity.transport.protocol import ProtocolDefinition

GROUP = "comity.protocols"


def protocol_names() -> list[str]:
    """Names of all registered protocols, without loading any."""
    return sorted(_registered())


def protocol(name: str) -> ProtocolDefinition:
    """A protocol by its name.

    Raises:
        UnsupportedProtocol: There is none of that name.
    """
    registered = _registered()
    if name not in registered:
        near = difflib.get_close_matches(name, registered, n=1)
        action = f"did you mean {near[0]}?" if near else "install the package that registers it"
        raise UnsupportedProtocol(
            "no such protocol here", expected=", ".join(sorted(registered)), received=name, action=action
        )
    definition: ProtocolDefinition = registered[name].load()
    return definition


def protocols_for(role: str) -> list[ProtocolDefinition]:
    """The protocols in which a role helps or asks."""
    return [each for each in map(protocol, protocol_names()) if role in each.roles]


@cache
def _registered() -> dict[str, EntryPoint]:
    # To look through all that is installed takes its time.
    return {each.name: each for each in entry_points(group=GROUP)}
