"""What a party sends is tried beside what others send: models that take long keep nobody else waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from comity.contract import Contract
from comity.errors import PolicyRefusal
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.session.session_registry import SessionRegistry
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.transport.negotiation import encode_proposal
from comity.wire.v1 import sessions_pb2
from tests.protocols.assisted_learning.test_trials import PARTIES, PLAIN

DEADLINE_S = 60.0


class Slow:
    """Trials of some terms that take as long as a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.release, self.trials = threading.Event(), threading.Event(), 0
        builder = protocol("assisted_learning").load().task
        at_once = builder.try_out

        def try_out(contract: Contract, task: object) -> None:
            self.trials += 1
            if contract.terms.batch_size == 16:  # type: ignore[attr-defined]
                self.begun.set()
                assert self.release.wait(DEADLINE_S)
            at_once(contract, task)

        monkeypatch.setattr(builder, "try_out", try_out)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow(monkeypatch)
    yield made
    made.release.set()


def asking(name: str) -> LocalParty:
    script = parse_script(PLAIN + PARTIES.replace("[party.learner]", f"[party.{name}]"))
    section = script.party[name].model_copy(update={"models": {}})
    return LocalParty(name, section, GivenSecrets(name.encode()), MemoryStore())


def helping(**policy: object) -> LocalParty:
    section = parse_script(PLAIN + PARTIES).party["provider"]
    changed = {"models": {}, "policy": section.policy.model_copy(update=policy)}
    return LocalParty("provider", section.model_copy(update=changed), GivenSecrets(b"provider"), MemoryStore())


def accepting(provider: LocalParty, sessions: SessionRegistry) -> Acceptor:
    return Acceptor(provider, AcceptedSessions(provider, "provider", sessions))


def proposal(name: str, session: str, batch_size: int) -> sessions_pb2.Proposal:
    party = asking(name)
    script = parse_script(PLAIN.replace("batch_size = 8", f"batch_size = {batch_size}"))
    contract, definition = drafted(script, party, session)
    return encode_proposal(contract, party.membership(definition.initiator, contract), party.signer, definition)


def drafted(script: object, party: LocalParty, session: str) -> tuple[Contract, ProtocolDefinition]:
    return draft_contract(script, party, session)  # type: ignore[arg-type]


def test_who_sends_what_takes_long_keeps_nobody_else_waiting(slow: Slow) -> None:
    sessions = SessionRegistry()
    acceptor = accepting(helping(), sessions)
    long, short = proposal("mallory", "long", 16), proposal("clinic", "short", 8)
    with ThreadPoolExecutor(4) as pool:
        waiting = pool.submit(acceptor.accept, "mallory", long)
        assert slow.begun.wait(DEADLINE_S)
        assert pool.submit(acceptor.accept, "clinic", short).result(DEADLINE_S) is not None
        # What the daemon does again and again, and what its operator asks.
        pool.submit(acceptor.accepted.expire, datetime.now(UTC)).result(DEADLINE_S)
        assert pool.submit(acceptor.accepted.events, "short").result(DEADLINE_S) is not None
        assert not waiting.done()
        slow.release.set()
        assert waiting.result(DEADLINE_S) is not None
        tried = slow.trials
        # The same models, task and terms are not tried in each session.
        assert acceptor.accept("clinic", proposal("clinic", "again", 8)) is not None
        assert slow.trials == tried
    for each in ("long", "short", "again"):
        acceptor.accepted.cancel(each)
    sessions.drain()


def test_what_is_tried_has_its_memory(slow: Slow) -> None:
    """Of several parties at a time, too: there is as much for trials and sessions together as for sessions."""
    memory = helping().memory_space(drafted(parse_script(PLAIN), asking("clinic"), "measured")[0])
    sessions = SessionRegistry()
    acceptor = accepting(helping(max_memory_bytes=memory * 3 // 2, max_party_share=1.0), sessions)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(acceptor.accept, "mallory", proposal("mallory", "long", 16))
        assert slow.begun.wait(DEADLINE_S)
        with pytest.raises(PolicyRefusal, match="has no memory"):
            acceptor.accept("clinic", proposal("clinic", "short", 8))
        slow.release.set()
        assert waiting.result(DEADLINE_S) is not None
    acceptor.accepted.cancel("long")
    assert acceptor.accept("clinic", proposal("clinic", "short", 8)) is not None
    acceptor.accepted.cancel("short")
    sessions.drain()
