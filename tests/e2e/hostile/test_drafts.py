"""Whether a teacher would agree is asked without a trace, by those alone whom its policy admits."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import tomlkit

from comity import errors
from comity.node.control_client import ControlClient
from comity.node.preflight import Context, preflight
from comity.node.sessions.drafts import would_agree
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.transport import sessions
from comity.transport.negotiation import encode_draft, encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import sessions_pb2
from tests.e2e.hostile.parties import MOST_ROUNDS, NUMBERS, QUICK, Target, assert_clear, data, refusal
from tests.e2e.hostile.test_proposals import PROPOSALS
from tests.e2e.hostile.votes import PLAY


def kept(target: Target) -> tuple[set[str], list[str]]:
    """The hospital's sessions, and what it recorded of Mallory."""
    with ControlClient(target.process.control_url) as control:
        sessions = {each.session for each in control.sessions()}
    with contextlib.closing(SqlStore(store_url(target.process.folder / "state"), read_only=True)) as store:
        return sessions, [entry.hash for entry in store.entries() if entry.fact.peer == "mallory"]


def draft(line: PeerConnection, request: sessions_pb2.DraftRequest) -> sessions_pb2.DraftReply:
    reply: sessions_pb2.DraftReply = line.call(line.stub(sessions.sessions_pb2_grpc.SessionsStub).Draft, request)
    return reply


@pytest.mark.usefixtures("during")
def test_a_teacher_says_that_it_would_agree_and_keeps_nothing(target: Target, line: PeerConnection) -> None:
    name = f"m-{next(NUMBERS)}"
    contract, party = PLAY.mallorys(name)
    before = kept(target)
    for _ in range(3):
        assert not would_agree(contract, PLAY.definition, party, line).asks_operator
    assert kept(target) == before
    assert not list(party.store.entries())
    # Nor does it bind anybody: the same id may be proposed, with another contract.
    other = contract.model_copy(update={"rounds": contract.rounds + 1})
    own = party.membership("student", other)
    agreement = sessions.propose(line, encode_proposal(other, own, party.signer, PLAY.definition))
    assert agreement.contract_hash == other.hash
    # What is agreed would be agreed to again; what is not is refused as a proposal would be.
    assert not would_agree(other, PLAY.definition, party, line).asks_operator
    error = refusal(lambda: would_agree(contract, PLAY.definition, party, line))
    assert_clear(error, errors.ContractMismatch, "exists already", "a new id")
    line.enter(other.session, other.hash)
    sessions.end(line, "cancelled")


@pytest.mark.usefixtures("during")
def test_a_draft_is_refused_as_a_proposal_is(line: PeerConnection) -> None:
    for make, kind, parts in PROPOSALS.values():
        proposal = make()
        request = sessions_pb2.DraftRequest()
        if proposal.HasField("contract"):
            request.contract.CopyFrom(proposal.contract)
        if proposal.HasField("membership"):
            request.membership.CopyFrom(proposal.membership)
        assert_clear(refusal(lambda request=request: draft(line, request)), kind, *parts)  # type: ignore[misc]


@pytest.mark.usefixtures("during")
def test_a_party_outside_the_policy_learns_nothing(target: Target) -> None:
    contract, party = PLAY.mallorys("uninvited", initiator="stranger")
    own = party.membership("student", contract).model_copy(update={"party": "stranger"})
    unfit = contract.model_copy(
        update={"models": {"student": contract.models["student"].model_copy(update={"name": "x"})}}
    )
    requests = [encode_draft(each, own, PLAY.definition) for each in (contract, unfit)]
    for edit in (
        lambda message: setattr(message.contract, "protocol", "nobody_has_it"),
        lambda message: setattr(message.contract, "protocol", "federated_count"),
        lambda message: setattr(message.contract, "version", 99),
        lambda message: message.contract.ClearField("terms"),
        lambda message: message.contract.ClearField("acceptors"),
        lambda message: setattr(message.membership, "party", "mallory"),
        lambda message: setattr(message.contract.models["student"], "signature", "0" * 64),
    ):
        request = sessions_pb2.DraftRequest()
        request.CopyFrom(requests[0])
        edit(request)
        requests.append(request)
    with PeerConnection(target.stranger, "hospital", target.address, QUICK) as connection:
        said = {str(refusal(lambda each=each: draft(connection, each))) for each in requests}  # type: ignore[misc]
    (line,) = said
    assert "policy.parties" in line
    assert "add the party" in line


@pytest.mark.usefixtures("during")
def test_a_preflight_asks_about_its_script(target: Target, tmp_path: Path) -> None:
    identity = target.mallory
    tls = {"certificate": identity.certificate, "key": identity.key, "trust": identity.trust}
    values = {
        "party": "mallory",
        "role": "student",
        "state_dir": "state",
        "secret": "mallory's",
        "tls": {name: str(path) for name, path in tls.items()},
        "data": data("learner"),
        "policy": {"egress": ["contract", "vote"]},
        "peers": {"hospital": {"address": target.address}},
    }
    (tmp_path / "node.toml").write_text(tomlkit.dumps(values))
    before = kept(target)
    for text, verdict, said in (
        (PLAY.text.format(id="drafted", acceptor="hospital", rounds=2), "passed", "2 rounds of teacher_votes"),
        (
            PLAY.text.format(id="drafted", acceptor="hospital", rounds=MOST_ROUNDS + 1),
            "failed",
            "hospital's policy.max_rounds",
        ),
        (PLAY.text.format(id="drafted", acceptor="bank", rounds=2), "skipped", "another row says why"),
    ):
        (tmp_path / "session.toml").write_text(text)
        context = Context(tmp_path / "node.toml", "", tmp_path / "session.toml")
        (row,) = [row for row in preflight(context) if row.check in {"session", "peer hospital: session"}]
        assert (row.verdict, row.side) == (verdict, "peer" if verdict == "failed" else "node")
        assert said in row.found
    assert kept(target) == before
