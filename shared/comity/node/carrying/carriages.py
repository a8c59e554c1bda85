"""Which sessions can be carried."""

from __future__ import annotations

from collections.abc import Sequence

from comity.errors import UnsupportedProtocol
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.implementation import Carriage


def carriage_of(definition: ProtocolDefinition) -> Carriage:
    """How a protocol's rounds are carried.

    Raises:
        UnsupportedProtocol: They cannot be.
    """
    carriage = definition.load().carriage
    if carriage is None:
        raise UnsupportedProtocol(
            f"the rounds of {definition.name} cannot be carried",
            expected="a protocol in which one party asks one other",
            received=definition.name,
            action="run the session over the network",
        )
    return carriage


def require_carried(definition: ProtocolDefinition, helpers: Sequence[str]) -> None:
    """Checks that a session's rounds can be carried.

    Raises:
        UnsupportedProtocol: They cannot be.
    """
    carriage_of(definition)
    if len(helpers) != 1:
        raise UnsupportedProtocol(
            "the rounds of a session with several helpers cannot be carried",
            expected=f"one {definition.acceptor}",
            received=", ".join(helpers) or "none",
            action="name one; a session with another is another session",
        )
