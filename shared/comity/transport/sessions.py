"""Negotiating sessions over the network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from comity import version
from comity.contract import Contract, Membership
from comity.errors import ContractMismatch, MalformedMessage, UnknownSession
from comity.session.chain import Clock, utc_now
from comity.session.codec import (
    contract_from_proto,
    contract_to_proto,
    membership_from_proto,
    membership_to_proto,
)
from comity.session.hosting import HostedSession, HostedSessions
from comity.session.receipts import Signer, require_member
from comity.transport.identity import caller, metadata
from comity.transport.link import CONTRACT_KEY, SESSION_KEY, Link
from comity.transport.protocol import ProtocolDefinition
from comity.wire.v1 import sessions_pb2 as pb
from comity.wire.v1 import sessions_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Sessions"].full_name

Accept = Callable[[str, pb.Proposal], HostedSession]
"""Decides on a party's proposal; raises to refuse it."""

Finish = Callable[[HostedSession], None]
"""Ends a session that its asker is done with."""

_LONGEST = 64
"""Characters that a name or a version in a description has at most, and protocols that it names."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a node tells any party that it trusts about itself.

    Attributes:
        party: Its party.
        role: Its role.
        version: Version of its installation.
        protocols: Versions of the protocols that it takes part in, by name.
        time: When it was said, by its clock.
    """

    party: str
    role: str
    version: str
    protocols: Mapping[str, int]
    time: datetime


Describe = Callable[[], Description]
"""Says who this node is, now."""


def describing(party: str, role: str, protocols: Mapping[str, int], *, clock: Clock = utc_now) -> Describe:
    """What says who a node is: the same at all times but for the time."""
    installed = version()
    return lambda: Description(party, role, installed, protocols, clock())


def session_of(sessions: HostedSessions, context: grpc.ServicerContext, protocol: str | None = None) -> HostedSession:
    """The session that a call belongs to.

    Raises:
        UnknownSession: The caller has no such session here.
        ContractMismatch: The call quotes another contract.
    """
    fields = metadata(context)
    session = sessions.get(fields.get(SESSION_KEY, ""), caller(context), fields.get(CONTRACT_KEY, ""), protocol)
    # Whoever quotes the contract has the agreement.
    session.gate.deliver_all(0)
    return session


class SessionsServicer(sessions_pb2_grpc.SessionsServicer):
    """Takes proposals.

    Args:
        sessions: The node's sessions.
        accept: Decides on a proposal.
        finish: Ends a session.
        signer: This node's key.
        describe: Says who this node is.
    """

    def __init__(
        self, sessions: HostedSessions, accept: Accept, finish: Finish, signer: Signer, describe: Describe
    ) -> None:
        self._sessions = sessions
        self._accept = accept
        self._finish = finish
        self._signer = signer
        self._describe = describe

    def Propose(self, request: pb.Proposal, context: grpc.ServicerContext) -> pb.Agreement:  # noqa: N802
        """Agrees to a contract, or refuses it with the reason."""
        self._sessions.require_open()
        for name in ("contract", "membership"):
            if not request.HasField(name):
                raise MalformedMessage(
                    "the proposal is incomplete",
                    expected=name,
                    received="nothing",
                    action="send contract and membership",
                )
        session = self._accept(caller(context), request)
        session.gate.admit("contract", "proposal", request.ByteSize())
        agreement = encode_agreement(session.seat.contract, session.seat.own, self._signer)
        session.gate.intend("contract", "agreement", agreement.ByteSize())
        return agreement

    def End(self, request: pb.EndRequest, context: grpc.ServicerContext) -> pb.EndReply:  # noqa: ARG002, N802
        """Ends a session; ending it again is no error."""
        # A session that is gone, and one that was never the caller's, are the same to it.
        with contextlib.suppress(UnknownSession):
            self._finish(session_of(self._sessions, context))
        return pb.EndReply()

    def Describe(self, request: pb.DescribePeerRequest, context: grpc.ServicerContext) -> pb.PeerDescription:  # noqa: ARG002, N802
        """Who this node is; nothing of its sessions."""
        return encode_description(self._describe())


def encode_proposal(contract: Contract, own: Membership, signer: Signer, protocol: ProtocolDefinition) -> pb.Proposal:
    """The message that offers a contract."""
    message = contract_to_proto(contract, protocol.terms_message())
    signature = signer.sign_membership(contract.hash, own)
    return pb.Proposal(contract=message, membership=membership_to_proto(own), signature=signature)


def decode_proposal(proposal: pb.Proposal, protocol: ProtocolDefinition) -> tuple[Contract, Membership]:
    """The contract and the asker's signed part in it.

    Raises:
        MalformedMessage: A field is missing or out of range.
        ReceiptInvalid: The part is not signed by the key that it names.
    """
    contract = contract_from_proto(proposal.contract, protocol.terms_message(), protocol.terms)
    membership = membership_from_proto(proposal.membership)
    require_member(contract.hash, membership, proposal.signature)
    return contract, membership


def encode_agreement(contract: Contract, own: Membership, signer: Signer) -> pb.Agreement:
    """The message that accepts a contract."""
    signature = signer.sign_membership(contract.hash, own)
    return pb.Agreement(contract_hash=contract.hash, membership=membership_to_proto(own), signature=signature)


def decode_agreement(agreement: pb.Agreement, contract: Contract, helper: str, role: str) -> Membership:
    """The helper's part, as its agreement states it.

    Raises:
        ContractMismatch: The helper hashed the contract to something else.
        MalformedMessage: It answers as somebody else.
        ReceiptInvalid: The part is not signed by the key that it names.
    """
    if agreement.contract_hash != contract.hash:
        action = "run the same version of comity on both sides"
        raise ContractMismatch(
            "the helper agreed to another contract",
            expected=contract.hash,
            received=agreement.contract_hash,
            action=action,
        )
    membership = membership_from_proto(agreement.membership)
    if (membership.party, membership.role) != (helper, role):
        received = f"{membership.role} {membership.party}"
        raise MalformedMessage(
            "the agreement is another party's",
            expected=f"{role} {helper}",
            received=received,
            action=f"check whose node answers at the address of {helper}",
        )
    require_member(contract.hash, membership, agreement.signature)
    return membership


def propose(link: Link, proposal: pb.Proposal) -> pb.Agreement:
    """Offers a contract to a helper.

    Raises:
        RefusedError: The helper refuses it; says why.
        TransportError: The helper did not answer.
    """
    return link.call(sessions_pb2_grpc.SessionsStub(link.channel).Propose, proposal)


def end(link: Link) -> None:
    """Tells a helper that the session is over."""
    link.call(sessions_pb2_grpc.SessionsStub(link.channel).End, pb.EndRequest())


def encode_description(description: Description) -> pb.PeerDescription:
    """The message that says who a node is."""
    named = [pb.ProtocolVersion(name=name, version=number) for name, number in description.protocols.items()]
    message = pb.PeerDescription(
        party=description.party, role=description.role, version=description.version, protocols=named
    )
    message.time.FromDatetime(description.time)
    return message


def decode_description(message: pb.PeerDescription, party: str) -> Description:
    """What a peer says of itself.

    Raises:
        MalformedMessage: A field is missing or out of range, or it is another party.
    """
    if message.party != party:
        raise MalformedMessage(
            "another party answers",
            expected=party,
            received=message.party[:_LONGEST] or "nobody",
            action=f"check whose node is at the address of {party}",
        )
    texts = [message.role, message.version, *(each.name for each in message.protocols)]
    if not all(1 <= len(each) <= _LONGEST for each in texts) or len(texts) > _LONGEST:
        raise MalformedMessage(
            f"{party} does not describe itself in a way that can be read",
            expected=f"a role, a version and protocols, at most {_LONGEST} characters each",
            received=", ".join(texts)[:_LONGEST] or "nothing",
            action="run the same version of comity on both sides",
        )
    try:
        time = message.time.ToDatetime(UTC) if message.HasField("time") else None
    except (ValueError, OverflowError):
        time = None
    if time is None:
        received = str(message.time) or "nothing"
        raise MalformedMessage(
            f"{party} does not say what time it is", expected="a time", received=received, action="set its clock"
        )
    protocols = {each.name: each.version for each in message.protocols}
    return Description(message.party, message.role, message.version, protocols, time)


def describe(link: Link) -> Description:
    """Asks a peer who it is.

    Raises:
        MalformedMessage: It says nothing that can be read, or it is another party.
        TransportError: It did not answer.
    """
    message = link.call(sessions_pb2_grpc.SessionsStub(link.channel).Describe, pb.DescribePeerRequest())
    return decode_description(message, link.party)
