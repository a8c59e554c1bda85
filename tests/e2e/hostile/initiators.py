"""The initiators of a session of any protocol, in this process, so that any of them can be made to do what none should.

The acceptors are daemons. What a protocol calls its operations need not be known: a role is played as it is, up to where
somebody interferes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import BaseModel, ValidationError

from comity.contract import Contract, Terms
from comity.errors import ComityError, InvalidValue, SessionFailed, UnknownSession
from comity.ledger.ledger import Units
from comity.node.control_client import ControlClient
from comity.node.party import LocalParty
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.initiator import draft_contract, run_session, stored
from comity.node.sessions.script import Script, session_text
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.protocol.roles import run
from comity.session.events import ignore
from comity.session.outcome import Outcome
from comity.session.waiting import Waits
from comity.simulation.processes import NodeProcess, prepare
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.tensors import Blob
from comity.transport import sessions
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.certificates import Authority
from comity.transport.identity import Identity
from comity.transport.negotiation import encode_proposal
from comity.transport.peer_connection import PeerConnection
from tests.cases import plain
from tests.e2e.hostile.parties import PATIENT

MALLORY = "mallory"


class Reached(Exception):
    """A role is about to upload something.

    Attributes:
        blob: What.
        kind: Its egress kind.
        units: What it belongs to.
    """

    def __init__(self, blob: Blob, kind: str, units: Units) -> None:
        super().__init__(f"{kind} of {units}")
        self.blob, self.kind, self.units = blob, kind, units


class Stopping(PeerConnection):
    """A line that carries everything but an upload."""

    def put(
        self, blob: Blob, kind: str, units: Units, *, before: Callable[[int], None], base: Blob | None = None
    ) -> None:
        """Goes no further."""
        del before, base
        raise Reached(blob, kind, units)


class Promising(Contract):
    """A contract whose hash is another's: who signs by it does less than was agreed, and says nothing of it."""

    _agreed: str = ""

    @classmethod
    def of(cls, contract: Contract, terms: Terms) -> Promising:
        """A contract of which only some terms are kept."""
        own = cls.model_construct(
            **{name: getattr(contract, name) for name in Contract.model_fields} | {"terms": terms}
        )
        own._agreed = contract.hash
        return own

    @property
    def hash(self) -> str:
        """What the others signed."""
        return self._agreed


@dataclass
class Siege:
    """Acceptors of a session as daemons, and its initiators here.

    Attributes:
        script: The session.
        nodes: The acceptors.
        identities: Those of the initiators, and of Mallory, who takes the place of the first.
    """

    script: Script
    nodes: Mapping[str, NodeProcess]
    identities: Mapping[str, Identity]
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def definition(self) -> ProtocolDefinition:
        return protocol(self.script.session.protocol)

    @property
    def acceptor(self) -> NodeProcess:
        return self.nodes[self.script.session.acceptors[0]]

    @property
    def initiators(self) -> list[str]:
        return sorted(self.script.party.keys() - set(self.script.session.acceptors))

    def party(self, name: str) -> LocalParty:
        """An initiator, who keeps nothing; Mallory is as the first is."""
        section = self.script.party[self.initiators[0] if name == MALLORY else name]
        secret = section.secret
        given = GivenSecrets(b"mallory's" if secret is None else secret.get_secret_value().encode())
        return LocalParty(name, section, given, MemoryStore())

    def line(self, name: str, acceptor: str = "", kind: type[PeerConnection] = PeerConnection) -> PeerConnection:
        """A line of an initiator to an acceptor, the first if none is named."""
        acceptor = acceptor or self.script.session.acceptors[0]
        with ControlClient(self.nodes[acceptor].control_url) as control:
            address = control.describe().address
        return self.stack.enter_context(kind(self.identities[name], acceptor, address, PATIENT))

    def state(self, id: str) -> tuple[str, str]:
        """How a session stands at the first acceptor, and what it came to."""
        with ControlClient(self.acceptor.control_url) as control:
            details = control.details(id)
        return details.summary.state, details.result

    def drafted(self, id: str, name: str, **terms: Any) -> Contract:
        """The contract of a session, which an initiator drafts, or of one that is joined its acceptor opens."""
        script = with_terms(with_id(self.script, id), terms)
        if not self.definition.topology.is_joined:
            return draft_contract(script, self.party(name), id)[0]
        with ControlClient(self.acceptor.control_url) as control:
            control.open(session_text(script))
        return sessions.fetch(self.line(name), id, protocol)[0]

    def play(
        self, contract: Contract, name: str, lines: Sequence[PeerConnection], little: Mapping[str, Any] | None = None
    ) -> Outcome:
        """An initiator's session, which it does not end.

        Args:
            contract: What is agreed on.
            name: Whose session it is.
            lines: To the acceptors.
            little: Terms that it goes by, in place of those that it agreed to.
        """
        party, definition = self.party(name), self.definition
        own = party.membership(definition.initiator, contract)
        party.store.save(stored(contract, own))
        waits = Waits(party.store, contract.session)
        negotiation = Negotiation(contract, definition, party, own, waits, threading.Event().wait)
        if not little:
            return run_session(negotiation, lines, ignore)
        peers = negotiation.agree(lines)
        kept = contract.terms.model_copy(update=little)
        place = party.session_context(Promising.of(contract, kept), own, ignore, peers, waits)
        contexts = [party.peer_context(place, peer) for peer in peers]
        (outcome,) = run(definition.load().connected(contexts, [RemoteChannel(line) for line in lines]))
        return outcome

    def join(self, contract: Contract, name: str) -> None:
        """Proposes a session, or joins it, and does nothing in it."""
        party, definition = self.party(name), self.definition
        own = party.membership(definition.initiator, contract)
        sessions.propose(self.line(name), encode_proposal(contract, own, party.signer, definition))

    def end(self, contract: Contract) -> None:
        """Ends a session of Mallory's, if it is on: she does, or of one that is joined the acceptor's operator."""
        if contract.is_open:
            with ControlClient(self.acceptor.control_url) as control, suppress(InvalidValue):
                control.cancel(contract.session)
            return
        for acceptor in self.nodes:
            line = self.line(MALLORY, acceptor)
            line.enter(contract.session, contract.hash)
            with suppress(UnknownSession, SessionFailed):
                sessions.end(line, "cancelled")

    def run(self, id: str) -> str:
        """A whole honest session; its digest, as a simulation says it."""
        contract = self.drafted(id, self.initiators[0])
        of = {}
        with ThreadPoolExecutor(len(self.initiators)) as pool:
            lines = {name: self.lines(name) for name in self.initiators}
            playing = {name: pool.submit(self.play, contract, name, lines[name]) for name in self.initiators}
            for name, each in playing.items():
                of[name] = each.result().digest
                for line in lines[name]:
                    sessions.end(line, "finished")
                    line.close()
        if not self.definition.topology.is_joined:
            return of.popitem()[1]
        return blake3(b"".join(bytes.fromhex(of[name]) for name in sorted(of))).hexdigest()

    def lines(self, name: str, first: type[PeerConnection] = PeerConnection) -> list[PeerConnection]:
        """An initiator's lines to all acceptors."""
        kinds = [first, *[PeerConnection] * (len(self.nodes) - 1)]
        pairs = zip(self.script.session.acceptors, kinds, strict=True)
        return [self.line(name, acceptor, kind) for acceptor, kind in pairs]


@contextmanager
def besieged(script: Script, folder: Path, limits: Mapping[str, Any] | None = None, **policy: Any) -> Iterator[Siege]:
    """A session's acceptors, who admit its initiators and Mallory.

    Args:
        script: The session.
        folder: Where they keep their states.
        limits: What each of them gives at most, where it is not what a node gives by itself.
        policy: Their policies, likewise.
    """
    authority = Authority.create()
    initiators = sorted(script.party.keys() - set(script.session.acceptors))
    for name in script.session.acceptors:
        section = script.party[name]
        policy = {"parties": (*initiators, MALLORY), "max_sessions": 64, "max_sessions_a_party": 64, **policy}
        changed = {"policy": section.policy.model_copy(update=policy)}
        if limits is not None:
            changed["limits"] = section.limits.model_copy(update=dict(limits))
        script.party[name] = section.model_copy(update=changed)
    nodes = {
        name: node for name, node in prepare(script, folder, authority=authority).items() if name not in initiators
    }
    identities = {name: authority.issue(name, folder / name / "tls") for name in (*initiators, MALLORY)}
    with ExitStack() as stack:
        for node in nodes.values():
            stack.callback(node.stop)
            node.start()
        for node in nodes.values():
            node.wait_ready()
        siege = Siege(script, nodes, identities)
        with siege.stack:
            yield siege


def with_id(script: Script, id: str) -> Script:
    """A script of a session of another name."""
    return script.model_copy(update={"session": script.session.model_copy(update={"id": id})})


def with_terms(script: Script, terms: Mapping[str, Any]) -> Script:
    """A script with other terms."""
    session = script.session
    return script.model_copy(update={"session": session.model_copy(update={"terms": {**session.terms, **terms}})})


@cache
def endless(name: str) -> Mapping[str, tuple[int, int]]:
    """The whole numbers of a protocol's terms as great as they may be, as far as all parties take them together.

    Who takes part stays as it is: a session for which somebody is missing does not begin.

    Returns:
        Of each the least and the greatest.
    """
    script, definition = plain(name).script, protocol(name)
    given = definition.terms.model_validate(script.session.terms)
    found: dict[str, int] = {}
    bounds = _bounds(definition.terms)
    # One may be taken only with another: a training without end is, with few models of it.
    for one, other in itertools.permutations(bounds, 2):
        lot = {one: bounds[one][1], other: bounds[other][1] // 2}
        for tried in (lot, *({each: bounds[each][1]} for each in lot)):
            if not found.keys() >= tried.keys() and _is_taken(script, definition, given, found | tried):
                found |= tried
                break
    for each in found:
        tried = found | {each: bounds[each][1]}
        if tried != found and _is_taken(script, definition, given, tried):
            found[each] = bounds[each][1]
    return {each: (bounds[each][0], most) for each, most in found.items()}


def _bounds(terms: type[BaseModel]) -> dict[str, tuple[int, int]]:
    """The least and the greatest value of each whole number, by its name."""
    found = {}
    for name, schema in terms.model_json_schema()["properties"].items():
        for form in schema.get("anyOf", [schema]):
            if form.get("type") == "integer":
                most = form.get("maximum", form.get("exclusiveMaximum", 2**63) - 1)
                found[name] = form.get("minimum", form.get("exclusiveMinimum", 0) + 1), most
    return found


def _is_taken(script: Script, definition: ProtocolDefinition, given: Terms, terms: Mapping[str, Any]) -> bool:
    try:
        changed = definition.terms.model_validate({**script.session.terms, **terms})
        if any(getattr(changed, each, 0) != getattr(given, each, 0) for each in ("participants", "min_participants")):
            return False
        draft, parties = with_terms(script, terms), {}
        for name, section in script.party.items():
            parties[name] = LocalParty(name, section, GivenSecrets(name.encode()), MemoryStore())
        joined, acceptors = definition.topology.is_joined, script.session.acceptors
        drafting = acceptors[0] if joined else next(each for each in parties if each not in acceptors)
        contract, _ = draft_contract(draft, parties[drafting], "drafted")
        for name, party in parties.items():
            own = party.membership(definition.acceptor if name in acceptors else definition.initiator, contract)
            party.review(contract, own, (), active=0)
            party.tried_task(contract)
    except (ComityError, ValidationError):
        return False
    return True
