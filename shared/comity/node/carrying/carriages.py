"""Which sessions can be carried."""

from __future__ import annotations

from collections.abc import Sequence

from comity.errors import UnsupportedProtocol
from comity.transport.protocol import ProtocolDefinition


def require_carried(definition: ProtocolDefinition, helpers: Sequence[str]) -> None:
    """Checks that a session's rounds can be carried.

    Raises:
        UnsupportedProtocol: They cannot be.
    """
    if not definition.service.is_offline:
        raise UnsupportedProtocol(
            f"the rounds of {definition.name} cannot be carried",
            expected="a protocol in which one party asks one other, such as assisted_learning",
            received=definition.name,
            action="run the session over the network",
        )
    if len(helpers) != 1:
        raise UnsupportedProtocol(
            "the rounds of a session with several helpers cannot be carried",
            expected=f"one {definition.helper}",
            received=", ".join(helpers) or "none",
            action="name one; a session with another is another session",
        )
