"""A student that sends weights to begin with which nobody asked for, or others than its proposal names."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from comity import errors
from comity.contract import INITIAL, Contract
from comity.ledger.ledger import WHOLE
from comity.node.party import LocalParty
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.drafts import would_agree
from comity.node.sessions.initiator import draft_contract, stored
from comity.node.sessions.weight_transfers import WeightTransfers, send_missing
from comity.session.policy import NOTHING_RESERVED
from comity.session.waiting import Waits
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.tasks import build_model
from comity.tensors import Blob, Layout
from comity.transport import sessions
from comity.transport.negotiation import encode_proposal
from comity.transport.peer_connection import PeerConnection
from tests.e2e.hostile.parties import PATIENT, QUICK, Target, assert_clear, refusal
from tests.e2e.hostile.votes import PLAY

NUMBERS = itertools.count()


def nothing(size: int) -> None:
    """Mallory asks nobody whether something may leave."""
    del size


@dataclass
class Begun:
    """A proposal of a session whose model begins with weights that the teacher lacks."""

    contract: Contract
    party: LocalParty
    line: PeerConnection

    @property
    def blob(self) -> Blob:
        return self.party.weights_blob(self.contract, self.contract.models["student"].initial)

    def with_model(self, **changes: Any) -> Begun:
        """Another proposal, of the model otherwise."""
        student = self.contract.models["student"].model_copy(update=changes)
        return replace(self, contract=self.contract.model_copy(update={"models": {"student": student}}))

    def propose(self) -> Any:
        membership = self.party.membership("student", self.contract)
        return sessions.propose(
            self.line, encode_proposal(self.contract, membership, self.party.signer, PLAY.definition)
        )

    def put(self, blob: Blob, kind: str = INITIAL) -> None:
        self.line.enter(self.contract.session, self.contract.hash)
        self.line.put(blob, kind, WHOLE, before=nothing)

    def refused(self, blob: Blob, kind: str = INITIAL) -> errors.ComityError:
        return refusal(lambda: self.put(blob, kind))


Begin = Callable[..., Begun]


@pytest.fixture
def begin(line: PeerConnection, tmp_path: Path) -> Begin:
    """Mallory drafts a session."""
    return drafting(line, tmp_path)


@pytest.fixture
def begin_only(tmp_path: Path) -> Begin:
    """Mallory drafts a session, and calls nobody."""
    return drafting(None, tmp_path)


def drafting(line: PeerConnection | None, tmp_path: Path) -> Begin:
    def drafted(change: Callable[[dict[str, Tensor]], object] = dict, *, sends: bool = True) -> Begun:
        id = f"begun-{next(NUMBERS)}"
        contract, _ = PLAY.mallorys(id)
        spec = contract.models["student"]
        state = {name: each.clone() for name, each in build_model(spec, contract.task, 5).state_dict().items()}
        change(state)
        save_file(state, tmp_path / f"{id}.safetensors")
        script = PLAY.script(id, initiator="mallory")
        section = script.party["mallory"]
        kinds = (*section.policy.egress, INITIAL) if sends else section.policy.egress
        policy = section.policy.model_copy(update={"egress": kinds})
        section = section.model_copy(update={"weights": {"own": tmp_path / f"{id}.safetensors"}, "policy": policy})
        models = {"student": script.session.models["student"].model_copy(update={"initial": "own"})}
        session = script.session.model_copy(update={"models": models})
        script = script.model_copy(update={"session": session, "party": script.party | {"mallory": section}})
        party = PLAY.asking(script, "mallory")
        return Begun(draft_contract(script, party, id)[0], party, line)  # type: ignore[arg-type]

    return drafted


def left(target: Target) -> set[str]:
    """The sessions of which the node keeps anything, as files or in its database."""
    state = target.process.folder / "state"
    files = {each.relative_to(state / "blobs").parts[0] for each in (state / "blobs").rglob("*") if each.is_file()}
    with closing(SqlStore(store_url(state), read_only=True)) as store:
        assert store.small_blobs is not None
        return {each for each in files | store.small_blobs.sessions() if each.startswith("begun-")}


@pytest.mark.usefixtures("during")
def test_a_draft_says_that_they_would_be_taken_and_has_none_taken(begin: Begin, target: Target) -> None:
    begun = begin()
    assert would_agree(begun.contract, PLAY.definition, begun.party, begun.line).lacks_weights
    assert_clear(begun.refused(begun.blob), errors.UnknownSession)
    held_back = begin(sends=False)
    refused = refusal(lambda: would_agree(held_back.contract, PLAY.definition, held_back.party, begun.line))
    assert_clear(refused, errors.UnknownWeights, "get the file from the other party")
    too_much = begun.with_model(initial_bytes=2**50)
    refused = refusal(lambda: would_agree(too_much.contract, PLAY.definition, begun.party, begun.line))
    assert_clear(refused, errors.PolicyRefusal, "has no memory for the session")
    assert not left(target)


@pytest.mark.usefixtures("during")
def test_weights_that_no_proposal_asked_for(begin: Begin, target: Target) -> None:
    begun = begin()
    assert_clear(begun.refused(begun.blob), errors.UnknownSession, "propose it first")
    assert not left(target)


@pytest.mark.usefixtures("during")
def test_weights_that_the_contract_does_not_let_cross(begin: Begin, target: Target) -> None:
    begun = begin(sends=False)
    assert_clear(refusal(begun.propose), errors.UnknownWeights, "policy.egress there names initial")
    assert_clear(begun.refused(begun.blob), errors.UnknownSession, "propose it first")
    assert not left(target)


@pytest.mark.usefixtures("during")
def test_other_bytes_another_length_another_digest_and_another_kind(begin: Begin, target: Target) -> None:
    begun = begin()
    assert_clear(refusal(begun.propose), errors.UnknownWeights, begun.blob.hex)
    right = begun.blob
    longer = Blob(right.digest, memoryview(bytes(right.data) + b"0"))
    assert_clear(begun.refused(longer), errors.BlobSizeMismatch, f"{right.size} bytes", f"{right.size + 1} bytes")
    others = Blob(right.digest, memoryview(bytes(right.size)))
    assert_clear(begun.refused(others), errors.BlobCorrupted, right.hex, Blob.of(others.data).hex)
    assert_clear(begun.refused(Blob.of(others.data)), errors.UnexpectedBlob, f"initial of the session, {right.hex}")
    assert_clear(begun.refused(right, "checkpoint"), errors.UnexpectedBlob, "initial of the session")
    assert not left(target)
    # Whoever else is trusted has no part in it.
    with PeerConnection(target.honest, PLAY.acceptor, target.address, QUICK) as theirs:
        assert_clear(replace(begun, line=theirs).refused(right), errors.UnknownSession)
    # Nor is it another contract's.
    assert_clear(begun.with_model(fresh=("x",)).refused(right), errors.UnknownSession)
    # It is taken as it should be all the same.
    send_missing(begun.party, begun.contract, begun.line, begun.party.gate(begun.contract, PLAY.acceptor))
    assert begun.propose().contract_hash == begun.contract.hash
    sessions.end(begun.line, "cancelled")
    assert not left(target)


def _not_a_number(state: dict[str, Tensor]) -> None:
    next(iter(state.values())).fill_(torch.nan)


def _of_another_model(state: dict[str, Tensor]) -> None:
    state["more"] = torch.zeros(3)


@pytest.mark.usefixtures("during")
def test_weights_that_are_no_numbers(begin: Begin, target: Target) -> None:
    begun = begin()
    bad = Layout.unpack(begun.blob)
    _not_a_number(bad)
    blob = Layout.of(bad).pack(bad)
    begun = begun.with_model(initial=blob.hex)
    assert_clear(refusal(begun.propose), errors.UnknownWeights, blob.hex)
    assert_clear(begun.refused(blob), errors.NonFiniteValue)
    assert not left(target)


@pytest.mark.usefixtures("during")
@pytest.mark.parametrize(
    "data", [bytes(1000), b"\x80\x04pickled", b"\xff" * 64], ids=["nothing", "pickled", "a long header"]
)
def test_weights_that_are_no_tensors(begin: Begin, target: Target, data: bytes) -> None:
    blob = Blob.of(data)
    begun = begin().with_model(initial=blob.hex, initial_bytes=blob.size)
    assert_clear(refusal(begun.propose), errors.UnknownWeights, blob.hex)
    assert_clear(begun.refused(blob), errors.MalformedMessage, "names and tensors alone")
    assert not left(target)


@pytest.mark.usefixtures("during")
def test_weights_of_another_model_are_dropped_with_the_proposal(begin: Begin, target: Target) -> None:
    begun = begin()
    other = Layout.unpack(begun.blob)
    _of_another_model(other)
    blob = Layout.of(other).pack(other)
    begun = begun.with_model(initial=blob.hex, initial_bytes=blob.size)
    assert_clear(refusal(begun.propose), errors.UnknownWeights, blob.hex)
    begun.put(blob)
    assert left(target)
    assert_clear(refusal(begun.propose), errors.InvalidValue, "another model's: more")
    assert not left(target)


@pytest.mark.usefixtures("during")
def test_what_one_party_sent_is_in_no_proposal_of_another(begin: Begin, target: Target) -> None:
    begun = begin()
    assert_clear(refusal(begun.propose), errors.UnknownWeights)
    begun.put(begun.blob)
    # The same session by its name, and the same weights by their digest.
    fields = begun.contract.model_dump() | {"initiator": PLAY.initiator, "terms": begun.contract.terms}
    theirs = PLAY.asking(PLAY.script(begun.contract.session))
    contract = Contract.model_validate(fields)
    with PeerConnection(target.honest, PLAY.acceptor, target.address, QUICK) as line:
        taken = refusal(Begun(contract, theirs, line).propose)
        assert_clear(taken, errors.ContractMismatch, "give the new session another id")
        named = contract.model_copy(update={"session": "named-by-digest"})
        assert_clear(refusal(Begun(named, theirs, line).propose), errors.UnknownWeights, begun.blob.hex)
    assert begun.propose().contract_hash == begun.contract.hash
    sessions.end(begun.line, "cancelled")
    assert not left(target)


@pytest.mark.usefixtures("during")
def test_weights_for_which_there_is_no_room(begin: Begin, target: Target) -> None:
    begun = begin().with_model(initial_bytes=2**50)
    assert_clear(refusal(begun.propose), errors.PolicyRefusal, "hospital has no memory for the session")
    assert_clear(begun.refused(begun.blob), errors.UnknownSession)
    assert not left(target)


@pytest.mark.usefixtures("during")
def test_many_proposals_that_wait_for_weights_take_the_room_of_a_few(begin: Begin, target: Target) -> None:
    many = [begin() for _ in range(6)]
    for begun in many:
        assert_clear(refusal(begun.propose), errors.UnknownWeights)
        begun.put(begun.blob)
    # policy.max_sessions_a_party, which is 4.
    assert left(target) == {begun.contract.session for begun in many[2:]}
    for begun in many[2:]:
        assert begun.propose().contract_hash == begun.contract.hash
        begun.line.enter(begun.contract.session, begun.contract.hash)
        sessions.end(begun.line, "cancelled")
    assert not left(target)


class Crowded(PeerConnection):
    """A line on which an acceptor has forgotten what it waits for, once: others of the same party came in between."""

    others: list[Begun]

    def put(self, *given: Any, **named: Any) -> None:
        while self.others:
            assert_clear(refusal(self.others.pop().propose), errors.UnknownWeights)
        super().put(*given, **named)


@pytest.mark.usefixtures("during")
def test_an_acceptor_that_has_forgotten_is_told_again(begin: Begin, target: Target) -> None:
    begun = begin()
    with Crowded(target.mallory, PLAY.acceptor, target.address, PATIENT) as line:
        line.others = [begin() for _ in range(4)]
        party, own = begun.party, begun.party.membership("student", begun.contract)
        party.store.save(stored(begun.contract, own))
        waits = Waits(party.store, begun.contract.session)
        negotiation = Negotiation(begun.contract, PLAY.definition, party, own, waits, threading.Event().wait)
        (agreed,) = negotiation.agree([line])
        assert not line.others
        assert agreed.party == PLAY.acceptor
        sessions.end(line, "cancelled")
    assert not left(target)


def test_weights_that_were_promised_and_do_not_come_keep_no_room_from_others(begin_only: Begin) -> None:
    """However long what was promised would take: nobody sends any of it."""
    begun = begin_only().with_model(initial_bytes=2**30)
    hospital = PLAY.asking(PLAY.script("hospital", initiator="hospital", acceptor="clinic"), "hospital")
    transfers = WeightTransfers(hospital)
    transfers.expect(begun.contract, "mallory", reserved=NOTHING_RESERVED)
    assert transfers.find("mallory", begun.contract.session, begun.contract.hash) is not None
    transfers.drop_late(60.0)
    assert transfers.find("mallory", begun.contract.session, begun.contract.hash) is not None
    transfers.drop_late(0.0)
    assert transfers.find("mallory", begun.contract.session, begun.contract.hash) is None


def test_weights_that_come_are_waited_for_while_they_come(begin_only: Begin) -> None:
    begun = begin_only()
    contract, blob = begun.contract, begun.blob
    hospital = PLAY.asking(PLAY.script("hospital", initiator="hospital", acceptor="clinic"), "hospital")
    transfers = WeightTransfers(hospital)
    transfers.expect(contract, "mallory", reserved=NOTHING_RESERVED)
    found = transfers.find("mallory", contract.session, contract.hash)
    assert found is not None
    incoming = found.blobs.receive(INITIAL, WHOLE, blob.digest, blob.size, 0)
    # An hour of it, and more than that is too long.
    found.heard -= 3600
    found.began -= 30
    transfers.drop_late(60.0)
    assert transfers.find("mallory", contract.session, contract.hash) is found
    found.began -= 3600
    transfers.drop_late(60.0)
    assert transfers.find("mallory", contract.session, contract.hash) is None
    del incoming
