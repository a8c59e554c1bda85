"""Whether a provider would agree is asked without a trace, by those alone whom its policy admits."""

from __future__ import annotations

import pytest

from comity import errors
from comity.node.control_client import ControlClient
from comity.node.sessions.drafts import would_agree
from comity.protocols.assisted_learning import PROTOCOL
from comity.transport import sessions
from comity.transport.peer_connection import PeerConnection
from comity.transport.sessions import encode_draft, encode_proposal
from comity.wire.v1 import sessions_pb2
from tests.e2e.hostile.attacks import NUMBERS, QUICK, Target, assert_clear, mallorys, refusal
from tests.e2e.hostile.test_proposals import PROPOSALS


def entries(target: Target) -> int:
    """How much the provider has recorded of sessions with Mallory, and of none."""
    with target.process.store() as store:
        return sum(entry.fact.peer != "learner" for entry in store.entries())


def known(target: Target) -> set[str]:
    with ControlClient(target.process.control_url) as control:
        return {each.session for each in control.sessions()}


def draft(line: PeerConnection, request: sessions_pb2.DraftRequest) -> sessions_pb2.DraftReply:
    reply: sessions_pb2.DraftReply = line.call(line.stub(sessions.sessions_pb2_grpc.SessionsStub).Draft, request)
    return reply


@pytest.mark.usefixtures("during")
def test_a_provider_says_that_it_would_agree_and_keeps_nothing(target: Target, line: PeerConnection) -> None:
    name = f"m-{next(NUMBERS)}"
    contract, party = mallorys(name)
    before = known(target)
    for _ in range(3):
        assert would_agree(contract, PROTOCOL, party, line)
    assert known(target) == before
    assert not list(party.store.entries())
    # Nor does it bind anybody: the same id may be proposed, with another contract.
    other = contract.model_copy(update={"rounds": contract.rounds + 1})
    own = party.membership("learner", other.terms)
    agreement = sessions.propose(line, encode_proposal(other, own, party.signer, PROTOCOL))
    assert agreement.contract_hash == other.hash
    # What is agreed would be agreed to again; what is not is refused as a proposal would be.
    assert would_agree(other, PROTOCOL, party, line)
    error = refusal(lambda: would_agree(contract, PROTOCOL, party, line))
    assert_clear(error, errors.ContractMismatch, "exists already", "a new id")
    line.enter(other.session, other.hash)
    sessions.end(line, "cancelled")


@pytest.mark.parametrize("case", PROPOSALS)
@pytest.mark.usefixtures("during")
def test_a_draft_is_refused_as_a_proposal_is(case: str, line: PeerConnection) -> None:
    make, kind, parts = PROPOSALS[case]
    proposal = make()
    request = sessions_pb2.DraftRequest()
    if proposal.HasField("contract"):
        request.contract.CopyFrom(proposal.contract)
    if proposal.HasField("membership"):
        request.membership.CopyFrom(proposal.membership)
    assert_clear(refusal(lambda: draft(line, request)), kind, *parts)


@pytest.mark.usefixtures("during")
def test_a_party_outside_the_policy_learns_nothing(target: Target) -> None:
    contract, party = mallorys("uninvited", initiator="stranger")
    own = party.membership("learner", contract.terms).model_copy(update={"party": "stranger"})
    unfit = contract.model_copy(update={"models": {"model": contract.models["model"].model_copy(update={"name": "x"})}})
    with PeerConnection(target.stranger, "provider", target.address, QUICK) as connection:
        said = {
            str(refusal(lambda each=each: draft(connection, encode_draft(each, own, PROTOCOL))))  # type: ignore[misc]
            for each in (contract, unfit)
        }
    (line,) = said
    assert "policy.parties" in line
    assert "add the party" in line
