"""A call belongs to a session of its caller, under the contract that both agreed to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from teacher_votes.definition import POOL, PROTOCOL

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract, Membership
from comity.errors import ComityError, ContractMismatch, MalformedMessage, ReceiptInvalid, UnknownSession
from comity.ledger.receipts import Signer
from comity.session.codec import membership_to_proto
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import ignore
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.session.receipt_book import ReceiptBook
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.transport.identity import Identity
from comity.transport.negotiation import decode_agreement, encode_agreement
from comity.transport.peer_connection import PeerConnection
from comity.transport.sessions import end, propose
from comity.wire.v1 import blobs_pb2, blobs_pb2_grpc
from comity.wire.v1 import sessions_pb2 as pb

SIGNER = Signer.from_seed(bytes(32), "hospital")
HOSPITAL = Membership(party="hospital", role="teacher", samples=10, receipt_key=SIGNER.public_key)
CLINIC = Membership(party="clinic", role="student", samples=10, receipt_key="0" * 64)


class Idle:
    """A role without work."""

    def advance(self) -> bool:
        return False

    def fail(self, error: ComityError) -> None:
        raise AssertionError(error)


@pytest.fixture
def contract(make_contract: Callable[..., Contract]) -> Contract:
    return make_contract()


@pytest.fixture
def host(serve: Callable[..., Any], contract: Contract) -> Any:
    """A node with one session of the clinic's."""
    store = MemoryStore()
    gate = EgressGate(contract, Policy(), store, "clinic")
    receipt_book = ReceiptBook(SIGNER, store, contract, CLINIC)
    blobs, journal, waits = SessionBlobs(), Journal(store, contract.session), Waits(store, contract.session)
    place = SessionContext(contract, HOSPITAL, None, blobs, journal, ignore, waits)
    return serve((PeerContext(place, CLINIC, blobs, gate, receipt_book), Idle()))


def stat(connection: PeerConnection) -> blobs_pb2.BlobStat:
    """A call of a session."""
    return connection.call(blobs_pb2_grpc.BlobsStub(connection.channel).Stat, blobs_pb2.BlobRef(digest=bytes(32)))


def test_a_call_reaches_its_session(connect: Callable[..., PeerConnection], host: Any, contract: Contract) -> None:
    assert not stat(connect(host.address, contract=contract)).complete


def test_a_call_without_a_session_is_refused(connect: Callable[..., PeerConnection], host: Any) -> None:
    with pytest.raises(UnknownSession, match="received none"):
        stat(connect(host.address))


def test_a_call_under_another_contract_is_refused(
    connect: Callable[..., PeerConnection], host: Any, contract: Contract, make_contract: Callable[..., Contract]
) -> None:
    other = make_contract(seed=8)
    with pytest.raises(ContractMismatch, match=f"expected {contract.hash}, received {other.hash}"):
        stat(connect(host.address, contract=other))


def test_another_party_does_not_learn_that_a_session_exists(
    connect: Callable[..., PeerConnection], host: Any, contract: Contract, make_contract: Callable[..., Contract]
) -> None:
    answers = []
    for each in (contract, make_contract(session="s-2")):
        connection = connect(host.address, identity=Identity("bank"), contract=each)
        with pytest.raises(UnknownSession) as caught:
            stat(connection)
        answers.append(str(caught.value).replace(each.session, "…"))
        end(connection, "finished")
    assert answers[0] == answers[1]
    assert host.sessions.find(contract.session) is not None


def test_a_session_ends_once_and_for_all(connect: Callable[..., PeerConnection], host: Any, contract: Contract) -> None:
    connection = connect(host.address, contract=contract)
    end(connection, "finished")
    assert host.sessions.find(contract.session) is None
    end(connection, "finished")
    with pytest.raises(UnknownSession):
        stat(connection)


@pytest.mark.parametrize(
    ("proposal", "missing"),
    [
        (pb.Proposal(), "contract"),
        (pb.Proposal(contract=pb.Contract()), "membership"),
        (pb.Proposal(membership=pb.Membership()), "contract"),
    ],
)
def test_half_a_proposal_is_refused(
    connect: Callable[..., PeerConnection], host: Any, proposal: pb.Proposal, missing: str
) -> None:
    with pytest.raises(MalformedMessage, match=f"expected {missing}"):
        propose(connect(host.address), proposal)


def test_a_helper_must_agree_to_the_same_contract_as_itself(contract: Contract) -> None:
    agreement = encode_agreement(contract, HOSPITAL, SIGNER)
    assert decode_agreement(agreement, contract, "hospital", PROTOCOL) == HOSPITAL
    with pytest.raises(MalformedMessage, match="expected teacher bank, received teacher hospital"):
        decode_agreement(agreement, contract, "bank", PROTOCOL)
    with pytest.raises(MalformedMessage, match="expected server hospital"):
        decode_agreement(agreement, contract, "hospital", POOL)
    with pytest.raises(MalformedMessage, match="membership"):
        decode_agreement(pb.Agreement(contract_hash=contract.hash), contract, "hospital", PROTOCOL)
    with pytest.raises(ContractMismatch, match=contract.hash):
        decode_agreement(pb.Agreement(contract_hash="0" * 64), contract, "hospital", PROTOCOL)


def test_a_membership_must_be_signed_by_its_own_key(contract: Contract) -> None:
    forger = Signer.from_seed(bytes(31) + b"f", "hospital")
    other = contract.model_copy(update={"seed": contract.seed + 1})
    for forged in (
        encode_agreement(contract, HOSPITAL, forger),
        pb.Agreement(contract_hash=contract.hash, membership=membership_to_proto(HOSPITAL)),
        pb.Agreement(
            contract_hash=contract.hash,
            membership=membership_to_proto(HOSPITAL),
            signature=encode_agreement(other, HOSPITAL, SIGNER).signature,
        ),
    ):
        with pytest.raises(ReceiptInvalid, match="not signed"):
            decode_agreement(forged, contract, "hospital", PROTOCOL)
