"""What an acceptor does with a proposal on which its operator decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from comity.contract import Contract, Membership
from comity.errors import ComityError, ContractMismatch, InvalidValue, PolicyRefusal, SessionCancelled, StateInUse
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.protocol.definition import ProtocolDefinition
from comity.session.session_registry import SessionRegistry
from comity.simulation.in_process import parties
from comity.store.leases import Leases
from comity.transport.negotiation import encode_draft, encode_proposal
from comity.wire.v1 import sessions_pb2

SCRIPT = """
[session]
protocol = "federated_count"
id = "asked"
acceptors = ["hospital"]
rounds = {rounds}
[party.clinic]
role = "analyst"
data = {{ source = "digits", per_class = 8, partition = {{ name = "uniform", parties = 2, index = 0 }} }}
policy = {{ egress = ["contract", "count"] }}
[party.hospital]
role = "site"
data = {{ source = "digits", per_class = 8, partition = {{ name = "uniform", parties = 2, index = 1 }} }}
policy = {{ egress = ["contract", "count"], approve = "ask", max_wait_s = 60.0 }}
"""


@dataclass
class Asked:
    """A hospital whose operator is asked, and a clinic that proposes."""

    clinic: LocalParty
    hospital: LocalParty
    sessions: SessionRegistry
    acceptor: Acceptor

    def drafted(self, rounds: int = 2) -> tuple[Contract, ProtocolDefinition]:
        return draft_contract(parse_script(SCRIPT.format(rounds=rounds)), self.clinic, "asked")

    def proposal(self, rounds: int = 2) -> sessions_pb2.Proposal:
        contract, definition = self.drafted(rounds)
        own = self.clinic.membership("analyst", contract)
        return encode_proposal(contract, own, self.clinic.signer, definition)

    def is_agreed(self, rounds: int = 2) -> bool:
        return self.acceptor.accept("clinic", self.proposal(rounds)) is not None

    @property
    def state(self) -> str:
        kept = self.hospital.store.find("asked")
        return "" if kept is None else kept.state


@pytest.fixture
def asked() -> Iterator[Asked]:
    (clinic,), (hospital,) = parties(parse_script(SCRIPT.format(rounds=2)))
    sessions = SessionRegistry(hospital.store)
    yield Asked(clinic, hospital, sessions, Acceptor(hospital, AcceptedSessions(hospital, "site", sessions)))
    sessions.drain()


def test_a_proposal_waits_until_it_is_accepted(asked: Asked) -> None:
    assert not asked.is_agreed()
    assert not asked.is_agreed(), "to ask again changes nothing"
    assert (asked.state, asked.acceptor.accepted.counted, len(asked.sessions)) == ("waiting", 0, 0)
    # The node stops, and starts.
    again = Acceptor(asked.hospital, AcceptedSessions(asked.hospital, "site", asked.sessions))
    again.accepted.restore()
    assert len(asked.sessions) == 0
    again.approve("asked")
    assert asked.state == "active"
    assert asked.is_agreed()
    with pytest.raises(InvalidValue, match="does not wait for approval"):
        again.approve("asked")


def test_those_who_look_on_see_it_begin(asked: Asked) -> None:
    asked.is_agreed()
    events = asked.acceptor.accepted.events("asked")
    assert events is not None
    asked.acceptor.approve("asked")
    assert asked.acceptor.accepted.events("asked") is events
    assert [events[at].kind for at in range(2)] == ["waiting", "session-started"]


def test_a_refusal_is_kept_with_its_reason(asked: Asked) -> None:
    asked.is_agreed()
    asked.acceptor.refuse("asked", "not before spring")
    assert asked.state == "refused"
    for _ in range(2):
        with pytest.raises(PolicyRefusal, match="received not before spring"):
            asked.is_agreed()


def test_another_contract_under_its_name_is_refused(asked: Asked) -> None:
    asked.is_agreed()
    with pytest.raises(ContractMismatch, match="expected a new id"):
        asked.is_agreed(rounds=3)
    assert asked.state == "waiting"


def test_whoever_proposed_it_takes_it_back_and_nobody_else(asked: Asked) -> None:
    asked.is_agreed()
    hash = asked.drafted()[0].hash
    for caller, quoted in (("bank", hash), ("clinic", "0" * 64)):
        asked.acceptor.withdraw(caller, "asked", quoted, "cancelled")
        assert asked.state == "waiting"
    asked.acceptor.withdraw("clinic", "asked", hash, "cancelled")
    assert asked.state == "cancelled"
    with pytest.raises(SessionCancelled):
        asked.is_agreed()


def test_what_is_accepted_at_that_moment_is_ended_all_the_same(asked: Asked) -> None:
    asked.is_agreed()
    asked.acceptor.approve("asked")
    asked.acceptor.withdraw("clinic", "asked", asked.drafted()[0].hash, "cancelled")
    assert (asked.state, len(asked.sessions)) == ("cancelled", 0)


def test_what_nobody_decides_ends_in_time(asked: Asked) -> None:
    asked.is_agreed()
    now = datetime.now(UTC)
    asked.acceptor.accepted.expire(now + timedelta(seconds=30))
    assert asked.state == "waiting"
    asked.acceptor.accepted.expire(now + timedelta(seconds=90))
    assert asked.state == "refused"
    with pytest.raises(PolicyRefusal, match="policy.max_wait_s"):
        asked.is_agreed()


def test_a_draft_says_that_an_operator_would_be_asked(asked: Asked) -> None:
    contract, definition = asked.drafted()
    draft = encode_draft(contract, asked.clinic.membership("analyst", contract), definition)
    assert asked.acceptor.review("clinic", draft).asks_operator
    assert asked.state == "", "nothing of it is kept"
    asked.is_agreed()
    assert asked.acceptor.review("clinic", draft).asks_operator


def test_whoever_stands_by_is_not_asked(asked: Asked) -> None:
    assert Acceptor(asked.hospital, AcceptedSessions(asked.hospital, "site", asked.sessions), asks=False).accept(
        "clinic", asked.proposal()
    )


def test_of_two_processes_that_agree_one_does(asked: Asked) -> None:
    """Both are told to at the same time: the second while the first looks whether the proposal still fits."""
    assert not asked.is_agreed()
    other = copy(asked.hospital)
    membership, refused = asked.hospital.membership, list[ComityError]()
    with closing(Leases(asked.hospital.store, "one")) as first, closing(Leases(asked.hospital.store, "two")) as second:
        asked.hospital.leases, other.leases = first, second
        elsewhere = SessionRegistry(other.store)

        def interrupted(role: str, contract: Contract | None = None) -> Membership:
            try:
                Acceptor(other, AcceptedSessions(other, "site", elsewhere)).approve("asked")
            except ComityError as error:
                refused.append(error)
            return membership(role, contract)

        asked.hospital.membership = interrupted  # type: ignore[method-assign]
        asked.acceptor.approve("asked")
        assert [type(each) for each in refused] == [StateInUse]
        assert (asked.state, len(asked.sessions), len(elsewhere)) == ("active", 1, 0)
        with pytest.raises(InvalidValue, match="does not wait for approval"):
            asked.acceptor.approve("asked")
        lease = asked.hospital.store.take_lease("asked", "two", timedelta(minutes=1))
        assert lease.owner == "one", "whoever works on it holds it still"
