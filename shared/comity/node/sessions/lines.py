"""The lines of a node to the parties that it asks."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from comity.contract import Contract
from comity.errors import ComityError, InvalidValue
from comity.node.config import NodeConfig
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import FAREWELL, RetryPolicy
from comity.transport.sessions import Ending, end

log = structlog.get_logger()


class Lines:
    """Opens lines to configured peers.

    Args:
        config: Where they are, and how patient this node is.
    """

    def __init__(self, config: NodeConfig) -> None:
        self._config = config

    def to(self, party: str, retry: RetryPolicy | None = None) -> PeerConnection:
        """A line to a peer.

        Raises:
            InvalidValue: It is none.
        """
        return PeerConnection(self._config.identity, party, self.address(party), retry or self._config.retry)

    def address(self, party: str) -> str:
        """Where a peer is.

        Raises:
            InvalidValue: It is none.
        """
        if party not in self._config.peers:
            raise InvalidValue(
                "session.acceptors names an unknown peer",
                expected=", ".join(self._config.peers) or "none",
                received=party,
                action=f"configure [peers.{party}] with its address",
            )
        return self._config.peers[party].address

    def farewell(self, contract: Contract, ending: Ending) -> bool:
        """Tells those who know of a session how it ended; whether all of them heard it."""
        told = True
        for acceptor in contract.acceptors:
            try:
                with self.to(acceptor, FAREWELL) as connection:
                    connection.enter(contract.session, contract.hash)
                    end(connection, ending)
            except ComityError as error:
                told = False
                log.info("peer-not-told", session=contract.session, peer=acceptor, error=str(error))
        return told


def tell(connections: Sequence[PeerConnection], ending: Ending) -> bool:
    """Tells the acceptors over the lines that there are, or fails."""
    for connection in connections:
        end(connection, ending)
    return True
