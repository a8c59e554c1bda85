"""What is said when a session is negotiated: proposals, drafts and agreements, to messages and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from comity.contract import Contract, Membership, Terms
from comity.errors import ContractMismatch, MalformedMessage, TaskMismatch
from comity.ledger.receipts import Signer, require_member
from comity.session.codec import (
    contract_from_proto,
    contract_to_proto,
    membership_from_proto,
    membership_to_proto,
)
from comity.wire.v1 import sessions_pb2 as pb

_LONGEST_NAME = 200


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
    contract = decode_contract(message.contract, protocol)
    membership = membership_from_proto(message.membership)
    _require_samples(membership, protocol)
    return contract, membership


def protocol_named(contract: pb.Contract) -> str:
    """The name of a contract's protocol; no more of it than a name can have, since it is looked up before it is checked."""
    return contract.protocol[:_LONGEST_NAME]


def decode_contract(message: pb.Contract, protocol: Negotiable) -> Contract:
    """A contract, whose models and task are those of its protocol.

    Raises:
        MalformedMessage: A field is missing or out of range.
        TaskMismatch: The protocol is not for such a task.
    """
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


def require_same_contract(contract: Contract, received: str) -> None:
    """Checks that an acceptor hashed a contract to the same.

    Raises:
        ContractMismatch: It has not.
    """
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
    require_same_contract(contract, agreement.contract_hash)
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
