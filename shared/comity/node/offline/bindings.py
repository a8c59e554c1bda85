"""Which sessions can be offline: their rounds exchanged in bundles."""

from __future__ import annotations

from collections.abc import Sequence

from comity.errors import UnsupportedProtocol
from comity.protocol.definition import ProtocolDefinition


def require_offline(definition: ProtocolDefinition, acceptors: Sequence[str]) -> None:
    """Checks that a session's rounds can be exchanged offline.

    Raises:
        UnsupportedProtocol: They cannot be.
    """
    if not definition.load().service.is_offline:
        raise UnsupportedProtocol(
            f"the rounds of {definition.name} cannot be exchanged offline",
            expected="a protocol in which one party asks one other",
            received=definition.name,
            action="run the session over the network",
        )
    if len(acceptors) != 1:
        raise UnsupportedProtocol(
            "the rounds of a session with several acceptors cannot be exchanged offline",
            expected=f"one {definition.acceptor}",
            received=", ".join(acceptors) or "none",
            action="name one; a session with another is another session",
        )
