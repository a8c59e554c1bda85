"""Whether another party would agree to a contract, asked before either side is bound by it."""

from __future__ import annotations

from comity.contract import Contract
from comity.node.party import LocalParty
from comity.protocol.definition import ProtocolDefinition
from comity.transport.negotiation import encode_draft
from comity.transport.peer_connection import PeerConnection
from comity.transport.sessions import send_draft
from comity.wire.v1 import sessions_pb2


def would_agree(
    contract: Contract, definition: ProtocolDefinition, party: LocalParty, connection: PeerConnection
) -> sessions_pb2.DraftReply:
    """Asks an acceptor whether it would agree to a contract; neither side keeps anything of it.

    Args:
        contract: The contract.
        definition: Its protocol.
        party: This party, which would initiate the session.
        connection: The line to the acceptor.

    Returns:
        That it would agree, and what else has to happen before.

    Raises:
        RefusedError: It would not, or this party's own policy would not; says why.
        TransportError: It did not answer.
    """
    own = party.membership(definition.initiator, contract)
    party.review(contract, own, contract.acceptors, active=0)
    draft = encode_draft(contract, own, definition)
    party.gate(contract, connection.party).send(draft, recorded=False)
    return send_draft(connection, draft, contract)
