"""Which parties of a protocol talk to which."""

from __future__ import annotations

from enum import Enum


class Topology(Enum):
    """Which parties of a session talk to which; a protocol says it once, and whoever has to know asks here.

    Attributes:
        PAIR: One initiator, one acceptor.
        CHAIN: One initiator, and one acceptor after the other.
        OPEN: One acceptor, whom many initiators join.
        FAN_OUT: One initiator, and several acceptors at once.
    """

    PAIR = "pair"
    CHAIN = "chain"
    OPEN = "open"
    FAN_OUT = "fan-out"

    @property
    def many_acceptors(self) -> bool:
        """Whether a session may have several acceptors."""
        return self in {Topology.CHAIN, Topology.FAN_OUT}

    @property
    def is_joined(self) -> bool:
        """Whether an acceptor opens the session, and initiators join it."""
        return self is Topology.OPEN

    def center(self, initiator: str, acceptor: str) -> str:
        """Of two roles, the one that one party alone has, which sees the whole session: it drafts the contract."""
        return acceptor if self.is_joined else initiator
