"""Whether a proposal may be considered at all: whose it is, what it is for, and that it is signed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from comity.contract import INITIAL, Contract, Membership
from comity.errors import MalformedMessage, PolicyRefusal, UnknownParty, UnsupportedProtocol
from comity.ledger.receipts import require_pinned
from comity.node.party import LocalParty
from comity.node.sessions.room import promise
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.session.policy import Asked
from comity.transport.negotiation import decode_draft, decode_proposal, protocol_named
from comity.wire.v1 import sessions_pb2


@dataclass(frozen=True, slots=True)
class Proposal:
    """A contract that a party proposes.

    Attributes:
        contract: The contract.
        definition: Its protocol.
        peer: The part in it of the party that proposes it.
    """

    contract: Contract
    definition: ProtocolDefinition
    peer: Membership


def read_proposal(
    party: LocalParty, role: str, caller: str, message: sessions_pb2.Proposal | sessions_pb2.DraftRequest
) -> Proposal:
    """Reads a proposal, or a draft of one, which is not signed.

    Args:
        party: The party that is asked.
        role: The role in which it helps.
        caller: Party that proposes, by its certificate.
        message: The contract and the caller's part in it.

    Raises:
        RefusedError: It is by somebody whom policy does not admit, for somebody else, in another's name or for another
            protocol.
        MalformedMessage: It cannot be read, or asks more parties than its protocol has.
        ReceiptInvalid: It is not signed with the key that the caller is known by.
    """
    # Before it is looked at: whatever is wrong with it says something of this node.
    party.config.policy.require_admitted(party.name, caller)
    definition = _offered(role, message.contract)
    if isinstance(message, sessions_pb2.Proposal):
        contract, peer = decode_proposal(message, definition)
    else:
        contract, peer = decode_draft(message, definition)
    initiator = peer.party if definition.topology.is_joined else contract.initiator
    if (
        not caller == initiator == peer.party
        or contract.is_open != definition.topology.is_joined
        or peer.role != definition.initiator
    ):
        raise UnknownParty(
            "the proposal is in another party's name",
            expected=f"{caller} as {definition.initiator}, which its certificate names",
            received=f"{contract.initiator or 'an open session'}, {peer.role} {peer.party}",
            action="propose in the name that your certificate states",
        )
    require_pinned(peer, party.config.receipt_key_of(peer.party))
    if party.name not in contract.acceptors:
        raise UnknownParty(
            "the contract is addressed to another party",
            expected=party.name,
            received=", ".join(contract.acceptors) or "no acceptor",
            action="propose it to those whom it asks",
        )
    several = definition.topology.many_acceptors
    if len(set(contract.acceptors)) < len(contract.acceptors) or (len(contract.acceptors) > 1 and not several):
        raise MalformedMessage(
            "the contract does not ask those whom its protocol has",
            expected=f"each {definition.acceptor} once" if several else f"one {definition.acceptor}",
            received=", ".join(contract.acceptors),
            action="name each once" if several else "name one; a session with another is another session",
        )
    return Proposal(contract, definition, peer)


def require_admissible(
    party: LocalParty,
    proposal: Proposal,
    own: Membership,
    *,
    active: int,
    asked: Asked,
    holding: Callable[[Contract, str], AbstractContextManager[None]],
) -> int:
    """Checks that this party's policy and its disk admit a proposal.

    Args:
        party: The party that is asked.
        proposal: The proposal.
        own: Its part in the session.
        active: Sessions that it has already.
        asked: What the other party asks of it already.
        holding: Holds the memory that a session that a party asks for may take, or refuses it.

    Returns:
        What the session may take on disk, in bytes.

    Raises:
        RefusedError: They do not.
    """
    contract, definition = proposal.contract, proposal.definition
    party.review(contract, own, (proposal.peer.party,), active=active, asked=asked)
    needed = definition.egress_of(contract.terms) + ((INITIAL,) if contract.weights_sent else ())
    if not set(contract.egress) <= set(needed):
        raise PolicyRefusal(
            "the contract lets more cross than its protocol needs",
            expected=", ".join(needed),
            received=", ".join(contract.egress),
            action="leave the others out of the contract",
        )
    # Before any model is built.
    with holding(contract, proposal.peer.party):
        return promise(party, contract, own, proposal.peer, definition)


def _offered(role: str, contract: sessions_pb2.Contract) -> ProtocolDefinition:
    definition = protocol(protocol_named(contract))
    if definition.acceptor != role or definition.version != contract.version:
        raise UnsupportedProtocol(
            "the contract's protocol is not offered here",
            expected=f"{definition.name} version {definition.version}, helped by a {definition.acceptor}",
            received=f"version {contract.version}, asked of a {role}",
            action="run the same version of comity on both sides",
        )
    return definition
