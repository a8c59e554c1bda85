"""What an operator, the page and monitors ask of a running node."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from comity.contract import Contract, Json
from comity.errors import InvalidValue, NodeDraining
from comity.ledger.ledger import Crossed
from comity.node.config import NodeConfig
from comity.node.party import LocalParty
from comity.node.reloading import Reloaded
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.initiated import InitiatedSessions
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.lines import Lines
from comity.node.sessions.overview import SessionDetails, SessionSummary, detailed, past_events, summarized
from comity.node.sessions.script import Script
from comity.node.status import NodeStatus, Running, status_of
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.protocol.roles import OperatorReply
from comity.session.events import Event
from comity.session.replayable_stream import ReplayableStream
from comity.transport import sessions


@dataclass
class Addresses:
    """Where a node can be reached; empty for where it cannot.

    Attributes:
        peers: By its peers.
        page: Its page, with the token.
        metrics: What monitors scrape.
    """

    peers: str = ""
    page: str = ""
    metrics: str = ""


@dataclass(frozen=True)
class Operations:
    """What can be asked of a node by those whom it obeys.

    Attributes:
        role: The role of the protocols that the node takes part in.
        config: Its configuration.
        local: Its party.
        initiated: The sessions that it asked for.
        acceptor: Decides on what is proposed to it.
        accepted: The sessions in which it helps.
        addresses: Where it can be reached.
        draining: Set when it takes no more.
        reload: Has it read its configuration again; see `Node.reload`.
        started: Since when it is there, UTC.
    """

    role: str
    config: NodeConfig
    local: LocalParty
    initiated: InitiatedSessions
    acceptor: Acceptor
    accepted: AcceptedSessions
    addresses: Addresses
    draining: threading.Event
    reload: Callable[[], Reloaded]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def party(self) -> str:
        """Its name."""
        return self.local.name

    @property
    def state_dir(self) -> Path:
        """Where it keeps what it keeps."""
        return self.config.state_dir.resolve()

    @property
    def address(self) -> str:
        """Where its peers reach it; empty where none can."""
        return self.addresses.peers

    def run(self, script: Script) -> str:
        """Starts a session.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        contract, definition = self._drafted(script)
        if definition.initiator != self.role:
            raise InvalidValue(
                "this node does not ask for help",
                expected=f"a {definition.initiator} node",
                received=f"a {self.role} node",
                action=f"run the script at the {definition.initiator}'s node; comity watch follows it here",
            )
        if definition.topology.is_joined:
            raise InvalidValue(
                f"{definition.name} is joined, not run",
                expected="a protocol that one party asks for",
                received=definition.name,
                action=f"comity open SCRIPT at the {definition.acceptor}'s node, then comity join at each {definition.initiator}'s",
            )
        self.initiated.start(contract, definition)
        return contract.session

    def _drafted(self, script: Script) -> tuple[Contract, ProtocolDefinition]:
        if self.draining.is_set():
            raise NodeDraining("the node is stopping", action="try again when it is back")
        return draft_contract(script, self.local, f"s-{secrets.token_hex(6)}")

    def status(self) -> NodeStatus:
        """One picture of the node at this moment.

        Raises:
            StorageError: What it keeps cannot be read.
        """
        queues = self.accepted.active.queues()
        active = frozenset(self._running())
        failed, where = self._failed(), self.addresses
        running = Running(
            self.role, where.peers, self.state_dir, self.started, active, queues, failed, where.page, where.metrics
        )
        return status_of(self.local, running)

    def sessions(self) -> list[SessionSummary]:
        """Every session that the node keeps, oldest first."""
        return summarized(self.local.store, self._running(), self.initiated.stopped(), self._failed())

    def details(self, session: str) -> SessionDetails:
        """One session.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        return detailed(self.local.store, self._running(), session, self.initiated.stopped(), self._failed())

    def history(self, session: str) -> list[Event]:
        """What is left to tell of a session: its finished rounds, and how it stands.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        return past_events(self.local.store, session)

    def crossed_today(self) -> Sequence[Crossed]:
        """What left and came since midnight, UTC."""
        return self.local.store.crossed(datetime.now(UTC).date().isoformat())

    def events(self, session: str) -> ReplayableStream[Event]:
        """What happens in a session, from its beginning.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        asked = self.initiated.find(session)
        events = self.accepted.events(session) if asked is None else asked.events
        if events is not None:
            return events
        past: ReplayableStream[Event] = ReplayableStream()
        for event in past_events(self.local.store, session):
            past.append(event)
        past.close()
        return past

    def cancel(self, session: str) -> bool:
        """Ends a session before its time; returns whether the other party was told, or will be at its next call.

        Raises:
            InvalidValue: It is not on.
        """
        return self.accepted.cancel(session) or self.initiated.cancel(session)

    def open(self, script: Script) -> str:
        """Opens a session that many may join; returns its identifier.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        contract, definition = self._drafted(script)
        if definition.acceptor != self.role or not definition.topology.is_joined:
            raise InvalidValue(
                "this node opens no such session",
                expected=f"a {definition.acceptor} node, and a protocol that many join",
                received=f"a {self.role} node and {definition.name}",
                action="a session that one party asks for begins with comity run, at its node",
            )
        self.acceptor.open(contract, definition)
        return contract.session

    def join(self, acceptor: str, session: str) -> None:
        """Joins a session that another party has opened.

        Raises:
            ComityError: There is none, or it is not for this node.
        """
        # By name, or by the address that is configured for it.
        names = {peer.address: name for name, peer in self.config.peers.items()}
        with Lines(self.config).to(names.get(acceptor, acceptor)) as connection:
            contract, definition = sessions.fetch(connection, session, protocol)
        if definition.initiator != self.role:
            raise InvalidValue(
                "this node does not join such a session",
                expected=f"a {definition.initiator} node",
                received=f"a {self.role} node",
                action=f"join at a {definition.initiator}'s node",
            )
        self.initiated.start(contract, definition)

    def resume(self, session: str) -> None:
        """Goes on with a session that stopped.

        Raises:
            InvalidValue: There is nothing to go on with.
        """
        self.initiated.resume(session)

    def call(self, session: str, call: str, fields: Mapping[str, Json]) -> OperatorReply:
        """Asks something of a session's role that it has to do with its operator.

        Raises:
            InvalidValue: There is no such session, or nothing that it has to do with an operator.
            ComityError: What the role says to it.
        """
        reply = self.initiated.call(session, call, fields)
        # What people were told is kept, a loss of power leaves: nobody would say it again.
        self.local.store.sync()
        return reply

    def approve(self, session: str) -> None:
        """Agrees to a proposal that waits for an operator.

        Raises:
            InvalidValue: There is none of that identifier.
            RefusedError: It does not fit this node any more.
        """
        self.acceptor.approve(session)

    def refuse(self, session: str, reason: str) -> None:
        """Refuses a proposal that waits for an operator, and has the other party told why.

        Raises:
            InvalidValue: There is none of that identifier.
        """
        self.acceptor.refuse(session, reason)

    def certificates(self) -> Mapping[tuple[str, str], datetime]:
        """Until when certificates are good, by whose they are (`own`, `peer`, `operator`) and the name in them.

        Raises:
            ComityError: A file is not there, or holds no certificate.
        """
        identity = self.config.identity
        if not identity.is_secure:
            return {}
        found = {("own", self.party): identity.valid_until()}
        found |= {("peer", name): until for name, until in identity.trusted().validity().items()}
        if self.config.control.listen:
            operators = self.config.operator_identity.trusted().validity()
            found |= {("operator", name): until for name, until in operators.items()}
        return found

    def _running(self) -> set[str]:
        return self.initiated.running() | self.accepted.active.names

    def _failed(self) -> dict[str, str]:
        """Why sessions can do nothing more that are not over, by identifier."""
        return {session: str(error) for session, error in self.accepted.active.failed().items()}
