"""The pieces of an honest session to spoil: its parties, and those who attack it, whatever the protocol."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from comity import errors
from comity.contract import Contract
from comity.errors import ComityError
from comity.node.control_client import ControlClient
from comity.node.party import LocalParty
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.initiator import draft_contract, run_session, stored
from comity.node.sessions.script import Script, parse_script
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.session.events import Event, Observer, ignore
from comity.session.outcome import Outcome
from comity.session.waiting import Waits
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.transport import sessions
from comity.transport.identity import Identity
from comity.transport.negotiation import encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from comity.transport.status import from_rpc_error
from comity.wire.v1 import sessions_pb2
from tests.e2e.conftest import Site

PARALLEL_ROUNDS = 25
MOST_ROUNDS = 50
QUICK = RetryPolicy(call_s=30.0, retry_s=0.2)
"""Of a client that gets its answer at once."""
PATIENT = RetryPolicy(call_s=20.0, retry_s=20.0)
DEADLINE_S = 120.0
NUMBERS = itertools.count()


def data(share: str) -> dict[str, Any]:
    """Half of some digits: `learner` or `provider` by the partition's name for it."""
    partition = {"name": "imbalance", "gamma": 0.3, "share": share, "seed": 3}
    return {"source": "digits", "seed": 3, "per_class": 20, "partition": partition}


@dataclass(frozen=True)
class Play:
    """A protocol's session between an honest initiator and an acceptor, which others attack.

    Attributes:
        protocol: The protocol's name.
        text: The session's script, with `{id}`, `{acceptor}` and `{rounds}`.
        initiator: Party of the honest initiator.
        acceptor: Party of the acceptor.
    """

    protocol: str
    text: str
    initiator: str
    acceptor: str

    @property
    def definition(self) -> ProtocolDefinition:
        """The protocol."""
        return protocol(self.protocol)

    def section(self, role: str, **policy: Any) -> dict[str, Any]:
        """A party of a script."""
        share = "learner" if role == self.definition.initiator else "provider"
        policy = {"egress": self.definition.egress, **policy}
        # Few samples, which anybody has: what the attacks are about is not what samples show.
        open_data = {"data": data(share), "privacy": {"preset": "public"}}
        return {"role": role, "secret": f"{role}'s", "policy": policy, **open_data}

    def script(self, id: str, *, acceptor: str = "", rounds: int = 2, initiator: str = "") -> Script:
        """A script, and the parties that play it in a simulation."""
        acceptor, initiator = acceptor or self.acceptor, initiator or self.initiator
        script = parse_script(self.text.format(id=id, acceptor=acceptor, rounds=rounds))
        roles = {initiator: self.definition.initiator, acceptor: self.definition.acceptor}
        tables = {party: self.section(role) for party, role in roles.items()}
        return type(script).model_validate(script.model_dump(exclude={"party"}) | {"party": tables})

    def asking(self, script: Script, initiator: str = "") -> LocalParty:
        """The initiator of a script."""
        section = script.party[initiator or self.initiator]
        assert section.secret is not None
        secrets = GivenSecrets(section.secret.get_secret_value().encode())
        return LocalParty(initiator or self.initiator, section, secrets, MemoryStore())

    def run_honestly(
        self, node: Target, id: str, *, rounds: int = 2, observe: Observer = ignore, retry: RetryPolicy = PATIENT
    ) -> Outcome:
        """A whole session of the honest initiator with the daemon."""
        script = self.script(id, rounds=rounds)
        initiator = self.asking(script)
        contract, definition = draft_contract(script, initiator, id)
        with PeerConnection(node.honest, self.acceptor, node.address, retry) as connection:
            own = initiator.membership(definition.initiator, contract)
            initiator.store.save(stored(contract, own))
            waits = Waits(initiator.store, contract.session)
            negotiation = Negotiation(contract, definition, initiator, own, waits, threading.Event().wait)
            outcome = run_session(negotiation, [connection], observe)
            sessions.end(connection, "finished")
            return outcome

    def mallorys(self, id: str, **changes: Any) -> tuple[Contract, LocalParty]:
        """A contract that the acceptor would take, and Mallory."""
        script = self.script(id, initiator="mallory")
        party = self.asking(script, "mallory")
        return draft_contract(script, party, id)[0].model_copy(update=changes), party

    def proposal(self, **changes: Any) -> sessions_pb2.Proposal:
        """Mallory's proposal, with fields of the contract replaced before they are encoded."""
        contract, party = self.mallorys("proposed", **changes)
        own = party.membership(self.definition.initiator)
        return encode_proposal(contract, own, party.signer, self.definition)

    def started(self, site: Site) -> Target:
        """The acceptor's daemon."""
        role = self.definition.acceptor
        policy = {"parties": [self.initiator, "mallory"], "max_rounds": MOST_ROUNDS}
        config = self.section(role, **policy) | {"listen": "127.0.0.1:0"}
        del config["role"]
        node = site.launch(role, self.acceptor, **config)
        return Target(
            node, node.wait_ready(), *(site.identity(each) for each in (self.initiator, "mallory", "stranger"))
        )

    @contextmanager
    def played(self, target: Target) -> Iterator[Parallel]:
        """The honest session; at the end it, and one that begins after everything, come to what a simulation comes to."""
        session = Parallel(self, target)
        session.step()
        session.wait(1)
        yield session
        assert session.finish().digest == simulate(self.script("parallel", rounds=PARALLEL_ROUNDS))[1].digest
        assert self.run_honestly(target, "after").digest == simulate(self.script("after"))[1].digest


@dataclass(frozen=True)
class Target:
    """An acceptor's daemon, and who calls it.

    Attributes:
        process: The daemon.
        address: Where it listens.
        honest: The honest initiator.
        mallory: A party that the acceptor trusts.
        stranger: A party with a trusted certificate whom the acceptor's policy does not name.
    """

    process: NodeProcess
    address: str
    honest: Identity
    mallory: Identity
    stranger: Identity

    def require_alive(self) -> None:
        """Checks that the daemon is there, and still the same process."""
        assert self.process.exit_code() is None, self.process.last_words()
        with ControlClient(self.process.control_url) as control:
            assert control.describe().pid == self.process.pid


def refusal(call: Callable[[], object]) -> ComityError:
    """What a call is refused with, as the product's own client understands it."""
    try:
        call()
    except grpc.RpcError as failure:
        return from_rpc_error(failure)
    except ComityError as error:
        return error
    pytest.fail("the call was answered")


def assert_clear(error: ComityError, kind: type[ComityError], *parts: str) -> None:
    """One line that says what was expected, what came and what to do."""
    line = str(error)
    assert type(error) is kind, line
    assert "\n" not in line
    assert len(line) < 700
    assert error.what, line
    if kind not in {errors.RemoteFailure, errors.SessionFailed}:
        assert error.expected, line
        assert error.received, line
        assert error.action, line
    for part in parts:
        assert part in line, line


class Parallel:
    """An honest session that is on while others attack; it waits after each round to be told to go on."""

    def __init__(self, play: Play, node: Target) -> None:
        self._play = play
        self.finished = 0
        self._rounds = threading.Condition()
        self._allowed = 0
        self._outcome: Outcome | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(node,), name="honest session", daemon=True)
        self._thread.start()

    def step(self) -> int:
        """Lets one more round begin, if it is not the last; returns the number of the round to wait for."""
        with self._rounds:
            self._allowed = min(self._allowed + 1, PARALLEL_ROUNDS - 1)
            self._rounds.notify_all()
            return self._allowed

    def wait(self, round: int) -> None:
        """Waits until a round is over."""
        with self._rounds:
            done = self._rounds.wait_for(lambda: self.finished >= round or self._outcome is not None, DEADLINE_S)
        assert done, f"the honest session hangs after round {self.finished}"
        assert self._outcome is None, self._outcome

    def finish(self) -> Outcome:
        """Lets it run to its end."""
        with self._rounds:
            self._allowed = PARALLEL_ROUNDS + 1
            self._rounds.notify_all()
        self._thread.join(DEADLINE_S)
        assert isinstance(self._outcome, Outcome), self._outcome
        return self._outcome

    def _run(self, node: Target) -> None:
        try:
            outcome: Outcome | BaseException = self._play.run_honestly(
                node, "parallel", rounds=PARALLEL_ROUNDS, observe=self._observe
            )
        except BaseException as error:  # noqa: BLE001 - shown by whoever waits
            outcome = error
        with self._rounds:
            self._outcome = outcome
            self._rounds.notify_all()

    def _observe(self, event: Event) -> None:
        if event.kind not in {"session-started", "round-finished"}:
            return
        with self._rounds:
            self.finished = event.round
            self._rounds.notify_all()
            self._rounds.wait_for(lambda: self._allowed > event.round)
