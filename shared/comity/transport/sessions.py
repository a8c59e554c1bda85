"""Negotiating sessions over the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from comity.contract import Contract, Membership, Terms
from comity.errors import ContractMismatch, MalformedMessage, SessionCancelled, TaskMismatch, UnknownSession
from comity.ledger.ledger import WHOLE
from comity.ledger.receipts import Signer, require_member
from comity.session.codec import (
    contract_from_proto,
    contract_to_proto,
    membership_from_proto,
    membership_to_proto,
)
from comity.session.egress_rules import require_control
from comity.session.gate import EgressGate
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.transport.description import Describe, encode_description
from comity.transport.identity import caller, metadata
from comity.transport.peer_connection import CONTRACT_KEY, SESSION_KEY, PeerConnection
from comity.wire.v1 import sessions_pb2 as pb
from comity.wire.v1 import sessions_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Sessions"].full_name
PROPOSE = f"/{SERVICE}/Propose"

Ending = Literal["finished", "failed", "cancelled"]
"""How a session ended."""

_LONGEST_NAME = 200

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
    # Whoever quotes the contract has the agreement.
    session.gate.deliver_all(WHOLE, "contract")
    return session


class Negotiable(Protocol):
    """A protocol, as far as its negotiation crosses the wire."""

    @property
    def name(self) -> str:
        """Its name."""

    def models_of(self, terms: Terms) -> tuple[str, ...]:
        """The models of contracts with these terms."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Kinds of task that it is for; empty for all."""

    @property
    def acceptor(self) -> str:
        """Role of the party that helps."""

    @property
    def terms(self) -> type[Terms]:
        """Its part of a contract."""

    @property
    def trains(self) -> frozenset[str]:
        """Roles that train on data of their own."""

    def terms_message(self) -> Message:
        """An empty message of the terms."""


AnyProtocol = TypeVar("AnyProtocol", bound=Negotiable)


class Negotiator(Protocol):
    """What a node that helps decides."""

    def accept(self, caller: str, message: pb.Proposal) -> AcceptedSession | None:
        """Agrees to a party's proposal, or raises to refuse it; None while an operator decides."""

    def review(self, caller: str, draft: pb.DraftRequest) -> pb.DraftReply:
        """Whether it would agree to a contract; raises to say why not. Nothing of it is kept."""

    def fetch(self, session: str) -> tuple[Contract, Negotiable]:
        """The contract of a session that is open, with its protocol."""

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
        contract, definition = self._helping.fetch(request.session)
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
        except (UnknownSession, SessionCancelled):
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


def encode_proposal(contract: Contract, own: Membership, signer: Signer, protocol: Negotiable) -> pb.Proposal:
    """The message that offers a contract."""
    message = contract_to_proto(contract, protocol.terms_message())
    signature = signer.sign_membership(contract.hash, own)
    return pb.Proposal(contract=message, membership=membership_to_proto(own), signature=signature)


def decode_proposal(proposal: pb.Proposal, protocol: Negotiable) -> tuple[Contract, Membership]:
    """The contract and the initiator's signed part in it.

    Raises:
        MalformedMessage: A field is missing or out of range.
        ReceiptInvalid: The part is not signed by the key that it names.
    """
    contract, membership = decode_draft(proposal, protocol)
    require_member(contract.hash, membership, proposal.signature)
    return contract, membership


def encode_draft(contract: Contract, own: Membership, protocol: Negotiable) -> pb.DraftRequest:
    """The message that asks about a contract; nobody is bound by it, since it is not signed."""
    message = contract_to_proto(contract, protocol.terms_message())
    return pb.DraftRequest(contract=message, membership=membership_to_proto(own))


def decode_draft(message: pb.Proposal | pb.DraftRequest, protocol: Negotiable) -> tuple[Contract, Membership]:
    """The contract and the initiator's part in it, whether it signed it or not.

    Raises:
        MalformedMessage: A field is missing or out of range.
        TaskMismatch: The protocol is not for such a task.
    """
    contract = _decode_contract(message.contract, protocol)
    membership = membership_from_proto(message.membership)
    _require_samples(membership, protocol)
    return contract, membership


def protocol_named(contract: pb.Contract) -> str:
    """The name of a contract's protocol; no more of it than a name can have, since it is looked up before it is checked."""
    return contract.protocol[:_LONGEST_NAME]


def _decode_contract(message: pb.Contract, protocol: Negotiable) -> Contract:
    """A contract whose models and task are those of its protocol."""
    contract = contract_from_proto(message, protocol.terms_message(), protocol.terms)
    require_models(contract.models, protocol, contract.terms)
    require_task_kind(contract.task.kind, protocol)
    return contract


def require_models(given: Iterable[str], protocol: Negotiable, terms: Terms) -> None:
    """Checks that models are those that a protocol has.

    Args:
        given: What they are called.
        protocol: The protocol.
        terms: Its terms, which may do without some.

    Raises:
        MalformedMessage: One is missing, or there is one more.
    """
    models = protocol.models_of(terms)
    if set(given) != set(models):
        raise MalformedMessage(
            f"the models are not those of {protocol.name}",
            expected=", ".join(models) or "none",
            received=", ".join(sorted(given)) or "none",
            action="name these in session.models",
        )


def require_task_kind(kind: str, protocol: Negotiable) -> None:
    """Checks that a protocol is for tasks of a kind.

    Raises:
        TaskMismatch: It is not.
    """
    if protocol.tasks and kind not in protocol.tasks:
        raise TaskMismatch(
            f"{protocol.name} is not for such a task",
            expected=" or ".join(protocol.tasks),
            received=kind,
            action="choose a protocol that is, or use other data",
        )


def _require_samples(membership: Membership, protocol: Negotiable) -> None:
    """Checks that a party that trains has something to train on.

    Raises:
        MalformedMessage: It has not.
    """
    if membership.role in protocol.trains and membership.samples < 1:
        raise MalformedMessage(
            f"{membership.party} would train on no samples",
            expected=f"1 or more behind what a {membership.role} sends",
            received=f"{membership.samples} samples",
            action="state how many there are",
        )


def _require_same(contract: Contract, received: str) -> None:
    if received != contract.hash:
        raise ContractMismatch(
            "the acceptor has another contract",
            expected=contract.hash,
            received=received[:64] or "nothing",
            action="run the same version of comity on both sides",
        )


def encode_agreement(contract: Contract, own: Membership, signer: Signer) -> pb.Agreement:
    """The message that accepts a contract."""
    signature = signer.sign_membership(contract.hash, own)
    return pb.Agreement(contract_hash=contract.hash, membership=membership_to_proto(own), signature=signature)


def decode_agreement(agreement: pb.Agreement, contract: Contract, acceptor: str, protocol: Negotiable) -> Membership:
    """The acceptor's part, as its agreement states it.

    Raises:
        ContractMismatch: The acceptor hashed the contract to something else.
        MalformedMessage: It answers as somebody else.
        ReceiptInvalid: The part is not signed by the key that it names.
    """
    _require_same(contract, agreement.contract_hash)
    membership = membership_from_proto(agreement.membership)
    if (membership.party, membership.role) != (acceptor, protocol.acceptor):
        received = f"{membership.role} {membership.party}"
        raise MalformedMessage(
            "the agreement is another party's",
            expected=f"{protocol.acceptor} {acceptor}",
            received=received,
            action=f"check whose node answers at the address of {acceptor}",
        )
    _require_samples(membership, protocol)
    require_member(contract.hash, membership, agreement.signature)
    return membership


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
    contract = _decode_contract(message, definition)
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


def send_draft(connection: PeerConnection, draft: pb.DraftRequest, contract: Contract) -> bool:
    """Asks an acceptor whether it would agree to a contract.

    Args:
        connection: The line to the acceptor.
        draft: What `encode_draft` made of the contract.
        contract: The contract.

    Returns:
        Whether its operator would have to agree as well.

    Raises:
        RefusedError: It would not; says why.
        ContractMismatch: It hashed the contract to something else.
        TransportError: It did not answer.
    """
    reply = connection.call(connection.stub(sessions_pb2_grpc.SessionsStub).Draft, draft)
    _require_same(contract, reply.contract_hash)
    return bool(reply.asks_operator)


def end(connection: PeerConnection, ending: Ending) -> None:
    """Tells an acceptor that the session is over."""
    request = pb.EndRequest(ending=ending_of(ending))
    require_control(request)
    connection.call(connection.stub(sessions_pb2_grpc.SessionsStub).End, request)
