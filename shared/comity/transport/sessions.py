"""Negotiating sessions over the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import grpc

from comity.contract import INITIAL, Contract
from comity.errors import DataChanged, MalformedMessage, NodeDraining, SessionFailed, UnknownSession
from comity.ledger.ledger import WHOLE
from comity.ledger.receipts import Signer
from comity.session.codec import (
    contract_to_proto,
)
from comity.session.egress_rules import require_control
from comity.session.gate import EgressGate
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.transport.blobs import HasBlobs
from comity.transport.description import Describe, encode_description
from comity.transport.identity import CONTRACT_KEY, SESSION_KEY, caller, metadata
from comity.transport.negotiation import (
    AnyProtocol,
    Negotiable,
    decode_contract,
    encode_agreement,
    protocol_named,
    require_same_contract,
)
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import sessions_pb2 as pb
from comity.wire.v1 import sessions_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Sessions"].full_name
PROPOSE = f"/{SERVICE}/Propose"

Ending = Literal["finished", "failed", "cancelled"]
"""How a session ended."""

_ENDINGS: dict[int, Ending] = {
    pb.ENDING_FINISHED: "finished",
    pb.ENDING_FAILED: "failed",
    pb.ENDING_CANCELLED: "cancelled",
}


def ending_named(number: int) -> Ending | None:
    """An ending by the number that the wire has for it; None for one that is none."""
    return _ENDINGS.get(number)


def ending_of(name: str) -> pb.Ending.ValueType:
    """The number that the wire has for an ending; that of none for a session that goes on."""
    found = next((number for number, each in _ENDINGS.items() if each == name), pb.ENDING_UNSPECIFIED)
    return pb.Ending.ValueType(found)


def session_of(
    sessions: SessionRegistry, context: grpc.ServicerContext, protocol: str | None = None
) -> AcceptedSession:
    """The session that a call belongs to.

    Raises:
        UnknownSession: The caller has no such session here.
        ContractMismatch: The call quotes another contract.
    """
    fields = metadata(context)
    session = sessions.get(fields.get(SESSION_KEY, ""), caller(context), fields.get(CONTRACT_KEY, ""), protocol)
    # A caller that quotes the contract has the agreement, and what its model begins with.
    session.gate.deliver_all(WHOLE, "contract")
    session.gate.deliver_all(WHOLE, INITIAL)
    return session


class Starter(Protocol):
    """Knows the weights to begin with that cross before a session is agreed on."""

    def starting(self, caller: str, session: str, contract_hash: str) -> HasBlobs | None:
        """Those that a caller may send or have for what it quotes; None for none."""


def with_blobs(sessions: SessionRegistry, starter: Starter, context: grpc.ServicerContext) -> HasBlobs:
    """What a call of the service of blobs belongs to: a session, or what is sent before there is one.

    Raises:
        UnknownSession: The caller has no such session here, and nothing is sent for one.
        ContractMismatch: The call quotes another contract.
    """
    try:
        return session_of(sessions, context)
    except UnknownSession:
        fields = metadata(context)
        found = starter.starting(caller(context), fields.get(SESSION_KEY, ""), fields.get(CONTRACT_KEY, ""))
        if found is None:
            raise
        return found


class Negotiator(Protocol):
    """What a node that helps decides."""

    def accept(self, caller: str, message: pb.Proposal) -> AcceptedSession | None:
        """Agrees to a party's proposal, or raises to refuse it; None while an operator decides."""

    def review(self, caller: str, draft: pb.DraftRequest) -> pb.DraftReply:
        """Whether it would agree to a contract; raises to say why not. Nothing of it is kept."""

    def fetch(self, caller: str, session: str) -> tuple[Contract, Negotiable]:
        """The contract of a session that is open, with its protocol, for a party that may have sessions here."""

    def gate(self, contract: Contract, party: str) -> EgressGate:
        """What may leave to a party with which there is no session yet."""

    def finish(self, session: AcceptedSession, ending: Ending) -> None:
        """Ends a session that its initiator is done with."""

    def withdraw(self, caller: str, session: str, contract_hash: str, ending: Ending) -> None:
        """Ends a proposal on which nobody has decided yet, and which its initiator takes back; none is no error."""


class SessionsServicer(sessions_pb2_grpc.SessionsServicer):
    """Takes proposals.

    Args:
        sessions: The node's sessions.
        helping: Decides on proposals and sees to the end of sessions.
        signer: This node's key.
        describe: Says who this node is.
    """

    def __init__(self, sessions: SessionRegistry, helping: Negotiator, signer: Signer, describe: Describe) -> None:
        self._sessions = sessions
        self._helping = helping
        self._signer = signer
        self._describe = describe

    def Propose(self, request: pb.Proposal, context: grpc.ServicerContext) -> pb.ProposalReply:  # noqa: N802
        """Agrees to a contract, or refuses it with the reason."""
        self._sessions.require_open()
        _require_complete(request)
        session = self._helping.accept(caller(context), request)
        if session is None:
            undecided = pb.Undecided()
            require_control(undecided)
            return pb.ProposalReply(undecided=undecided)
        session.gate.admit(request)
        agreement = encode_agreement(session.context.contract, session.context.own, self._signer)
        session.gate.send(agreement)
        return pb.ProposalReply(agreement=agreement)

    def Draft(self, request: pb.DraftRequest, context: grpc.ServicerContext) -> pb.DraftReply:  # noqa: N802
        """Says whether this node would agree to a contract, or refuses it with the reason."""
        self._sessions.require_open()
        _require_complete(request)
        reply = self._helping.review(caller(context), request)
        require_control(reply)
        return reply

    def Fetch(self, request: pb.FetchRequest, context: grpc.ServicerContext) -> pb.Contract:  # noqa: N802
        """Gives the contract of a session that is open."""
        contract, definition = self._helping.fetch(caller(context), request.session)
        message = contract_to_proto(contract, definition.terms_message())
        self._helping.gate(contract, caller(context)).send(message, recorded=False)
        return message

    def End(self, request: pb.EndRequest, context: grpc.ServicerContext) -> pb.EndReply:  # noqa: N802
        """Ends a session; ending it again is no error."""
        ending = ending_named(request.ending)
        if ending is None:
            raise MalformedMessage(
                "the end is incomplete",
                expected=", ".join(_ENDINGS.values()),
                received=request.ending,
                action="say how the session ended",
            )
        try:
            session = session_of(self._sessions, context)
        except (UnknownSession, SessionFailed) as error:
            if isinstance(error, NodeDraining | DataChanged):
                raise
            # A session that is gone, and one that was never the caller's, are the same to it.
            fields = metadata(context)
            self._helping.withdraw(caller(context), fields.get(SESSION_KEY, ""), fields.get(CONTRACT_KEY, ""), ending)
        else:
            self._helping.finish(session, ending)
        return pb.EndReply()

    def Describe(self, request: pb.DescribePeerRequest, context: grpc.ServicerContext) -> pb.PeerDescription:  # noqa: ARG002, N802
        """Who this node is; nothing of its sessions."""
        description = encode_description(self._describe())
        require_control(description)
        return description


def _require_complete(message: pb.Proposal | pb.DraftRequest) -> None:
    for name in ("contract", "membership"):
        if not message.HasField(name):
            raise MalformedMessage(
                "the proposal is incomplete",
                expected=name,
                received="nothing",
                action="send contract and membership",
            )


def fetch(
    connection: PeerConnection, session: str, protocol: Callable[[str], AnyProtocol]
) -> tuple[Contract, AnyProtocol]:
    """The contract of a session that an acceptor has opened.

    Args:
        connection: The line to the acceptor.
        session: The session's identifier.
        protocol: Finds a protocol by its name.

    Raises:
        UnknownSession: No such session is open there.
        UnsupportedProtocol: Its protocol is not known here.
        MalformedMessage: The contract cannot be read, or is another one.
    """
    request = pb.FetchRequest(session=session)
    require_control(request)
    message = connection.call(connection.stub(sessions_pb2_grpc.SessionsStub).Fetch, request)
    definition = protocol(protocol_named(message))
    contract = decode_contract(message, definition)
    if (contract.session, contract.is_open, contract.acceptors) != (session, True, (connection.party,)):
        raise MalformedMessage(
            "the contract is another session's",
            expected=f"session {session} of {connection.party}, open to many",
            received=f"session {contract.session} of {', '.join(contract.acceptors)}",
            action="ask the server's operator for the identifier",
        )
    return contract, definition


def propose(connection: PeerConnection, proposal: pb.Proposal) -> pb.Agreement | None:
    """Offers a contract to an acceptor; None while an operator of the acceptor decides.

    Raises:
        RefusedError: The acceptor refuses it; says why.
        MalformedMessage: It answers neither.
        TransportError: The acceptor did not answer.
    """
    reply = connection.call(connection.stub(sessions_pb2_grpc.SessionsStub).Propose, proposal)
    match reply.WhichOneof("answer"):
        case "agreement":
            return reply.agreement
        case "undecided":
            return None
        case _:
            raise MalformedMessage(
                f"{connection.party} answers neither yes nor no to the proposal",
                expected="an agreement, or that its operator decides",
                received="nothing",
                action="run the same version of comity on both sides",
            )


def send_draft(connection: PeerConnection, draft: pb.DraftRequest, contract: Contract) -> pb.DraftReply:
    """Asks an acceptor whether it would agree to a contract.

    Args:
        connection: The line to the acceptor.
        draft: What `encode_draft` made of the contract.
        contract: The contract.

    Returns:
        What else has to happen before it agrees.

    Raises:
        RefusedError: It would not; says why.
        ContractMismatch: It hashed the contract to something else.
        TransportError: It did not answer.
    """
    reply = connection.call(connection.stub(sessions_pb2_grpc.SessionsStub).Draft, draft)
    require_same_contract(contract, reply.contract_hash)
    return reply


def end(connection: PeerConnection, ending: Ending) -> None:
    """Tells an acceptor that the session is over."""
    request = pb.EndRequest(ending=ending_of(ending))
    require_control(request)
    connection.call(connection.stub(sessions_pb2_grpc.SessionsStub).End, request)
