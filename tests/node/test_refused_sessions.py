"""What a session leaves that is refused: nothing, however often a peer proposes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from comity.contract import Contract, Membership
from comity.errors import InvalidValue, PolicyRefusal, SessionFailed, UnknownSession
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.overview import summarized
from comity.node.sessions.script import parse_script
from comity.node.watchers import SessionWatcher
from comity.session import log_context
from comity.session.events import ignore
from comity.session.session_registry import SessionRegistry
from comity.simulation.in_process import parties
from comity.transport.negotiation import encode_proposal
from tests.e2e.conftest import until

SCRIPT = """
[session]
protocol = "federated_count"
id = "unwelcome"
acceptors = ["hospital"]
rounds = 2
[party.clinic]
role = "analyst"
data = {{ source = "digits", per_class = 8, partition = {{ name = "uniform", parties = 2, index = 0 }} }}
policy = {{ egress = ["contract", "count"] }}
[party.hospital]
role = "site"
data = {{ source = "digits", per_class = 8, partition = {{ name = "uniform", parties = 2, index = 1 }} }}
policy = {{ egress = ["contract", "count"], {policy} }}
"""


@dataclass
class Seen(SessionWatcher):
    """What a watcher was told."""

    told: list[str] = field(default_factory=list)

    def entered(self, contract: Contract, party: str) -> None:
        """See `SessionWatcher.entered`."""
        self.told.append("entered")

    def ended(self, session: str, state: str, why: object) -> None:
        """See `SessionWatcher.ended`."""
        self.told.append(state)


@dataclass
class Proposed:
    """A clinic that proposes, and a hospital with a policy."""

    clinic: LocalParty
    hospital: LocalParty
    sessions: SessionRegistry
    seen: Seen

    def contract(self, policy: str) -> tuple[Contract, Membership, Any]:
        contract, definition = draft_contract(parse_script(SCRIPT.format(policy=policy)), self.clinic, "unwelcome")
        return contract, self.clinic.membership("analyst", contract), definition


def proposed(policy: str) -> Iterator[Proposed]:
    (clinic,), (hospital,) = parties(parse_script(SCRIPT.format(policy=policy)))
    found = Proposed(clinic, hospital, SessionRegistry(hospital.store), Seen())
    with hospital.watchers.added(found.seen):
        yield found
    found.sessions.drain()


POLICY = 'max_epsilon = 1.0, approve = "ask"'


@pytest.fixture
def poor() -> Iterator[Proposed]:
    yield from proposed(POLICY)


@pytest.fixture
def willing() -> Iterator[Proposed]:
    yield from proposed("max_rounds = 5")


def require_nothing_left(found: Proposed) -> None:
    assert found.hospital.store.find("unwelcome") is None
    assert list(found.hospital.store.records("unwelcome")) == []
    assert log_context.round_of("unwelcome") is None


def test_a_budget_is_asked_before_an_operator_is(poor: Proposed) -> None:
    contract, own, definition = poor.contract(POLICY)
    acceptor = Acceptor(poor.hospital, AcceptedSessions(poor.hospital, "site", poor.sessions))
    with pytest.raises(PolicyRefusal, match="max_epsilon"):
        acceptor.accept("clinic", encode_proposal(contract, own, poor.clinic.signer, definition))
    require_nothing_left(poor)


def test_who_looks_on_hears_nothing_of_a_session_that_is_not_entered(poor: Proposed) -> None:
    contract, peer, definition = poor.contract(POLICY)
    own = poor.hospital.membership(definition.acceptor, contract)
    with pytest.raises(PolicyRefusal, match="max_epsilon"):
        poor.hospital.session_context(contract, own, ignore, [peer])
    assert poor.seen.told == []
    require_nothing_left(poor)


def test_a_session_whose_work_cannot_begin_is_over_for_who_looks_on(willing: Proposed) -> None:
    contract, own, definition = willing.contract("max_rounds = 5")

    def work(role: object, name: str) -> Any:
        raise InvalidValue(f"{name} cannot be worked on")

    acceptor = Acceptor(willing.hospital, AcceptedSessions(willing.hospital, "site", willing.sessions, work))
    proposal = encode_proposal(contract, own, willing.clinic.signer, definition)
    with pytest.raises(InvalidValue, match="cannot be worked on"):
        acceptor.accept("clinic", proposal)
    assert willing.seen.told == ["entered", "failed"]
    require_nothing_left(willing)

    assert (
        Acceptor(willing.hospital, AcceptedSessions(willing.hospital, "site", willing.sessions)).accept(
            "clinic", proposal
        )
        is not None
    )
    assert willing.seen.told == ["entered", "failed", "entered"]


def test_a_session_that_failed_is_said_to_have_and_ends_where_its_initiator_does_not_end_it(
    willing: Proposed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose unit took too long, and whose initiator is gone: else it is listed as running for ever."""
    contract, own, definition = willing.contract("max_rounds = 5")
    acceptor, sessions = (
        Acceptor(willing.hospital, AcceptedSessions(willing.hospital, "site", willing.sessions)),
        willing.sessions,
    )
    assert acceptor.accept("clinic", encode_proposal(contract, own, willing.clinic.signer, definition)) is not None
    active = sessions.find("unwelcome")
    assert active is not None

    def takes_too_long() -> bool:
        raise SessionFailed("a unit of the session's work takes too long", expected="at most 1 s, by limits.unit_s")

    monkeypatch.setattr(active.role, "advance", takes_too_long)
    active.worker.call(lambda: True)
    until(lambda: bool(sessions.failed()), "it failed")
    failed = {name: str(error) for name, error in sessions.failed().items()}
    (seen,) = summarized(willing.hospital.store, sessions.names, failed=failed)
    assert (seen.state, "limits.unit_s" in seen.why) == ("failed", True)
    # Its initiator is told, and ends it.
    acceptor.accepted.expire(datetime.now(UTC))
    assert sessions.find("unwelcome") is active
    # This one does not.
    monkeypatch.setattr("comity.node.sessions.accepted._TELLING_S", 0.0)
    acceptor.accepted.expire(datetime.now(UTC))
    kept = willing.hospital.store.find("unwelcome")
    assert kept is not None
    assert (kept.state, sessions.find("unwelcome"), acceptor.accepted.counted) == ("failed", None, 0)
    with pytest.raises(SessionFailed, match="takes too long"):
        sessions.get("unwelcome", "clinic", contract.hash)
    with pytest.raises(UnknownSession):
        sessions.get("unwelcome", "bank", contract.hash)
    # Whoever ends it late is no trouble.
    acceptor.withdraw("clinic", "unwelcome", contract.hash, "failed")
