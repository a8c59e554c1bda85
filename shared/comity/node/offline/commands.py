"""Where an operator exports and imports, at a node that stands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comity.errors import ContractMismatch, InvalidValue, MissingFile, UnknownParty, UnknownSession
from comity.node.config import NodeConfig
from comity.node.garbage import occupied
from comity.node.offline.acceptor import OfflineAcceptor
from comity.node.offline.initiator import OfflineInitiator
from comity.node.party import LocalParty
from comity.node.sessions.initiator import is_offline
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import Script
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.session.events import Observer
from comity.store.leases import Leases, owner_in
from comity.store.sql_store import SqlStore
from comity.store.store import StoredSession
from comity.transport.bundles import Label, ReceivedBundle, opened_bundle, unpacked, write_bundle
from comity.transport.negotiation import protocol_named
from comity.transport.sessions import ending_named
from comity.wire.v1 import sessions_pb2


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle that was written.

    Attributes:
        session: Its session.
        round: Its round; 0 for what comes before the first.
        rounds: Rounds that were bought.
        receiver: Party to carry it to.
        file: The file.
        blobs: Blobs in it.
        bytes: Its length.
        ending: How the session ended, where this is the last bundle; else empty.
    """

    session: str
    round: int
    rounds: int
    receiver: str
    file: Path
    blobs: int
    bytes: int
    ending: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A bundle that was taken.

    Attributes:
        session: Its session.
        round: Its round; 0 for what comes before the first.
        sender: Party that made it.
        blobs: Blobs in it.
        export_due: Whether an export is to follow here.
        result: What the session came to, where it is over now.
        model: Folder with the session's model, where it is over now.
    """

    session: str
    round: int
    sender: str
    blobs: int
    export_due: bool
    result: SessionResult | None = None
    model: Path | None = None


@contextlib.contextmanager
def offline_commands(config: NodeConfig, observe: Observer) -> Iterator[OfflineCommands]:
    """Opens what a node keeps, while its daemon is stopped.

    Args:
        config: The node's configuration.
        observe: Is told what happens.

    Raises:
        StateInUse: The daemon runs.
        StorageError: What the node keeps cannot be read or written.
        MissingFile: Nothing says whom this node trusts.
    """
    with (
        occupied(config.state_dir),
        contextlib.closing(SqlStore(config.store_url, party=config.party)) as store,
        contextlib.closing(Leases(store, owner_in(config.state_dir))) as leases,
    ):
        party = LocalParty(config.party, config, config.secrets(config.state_dir), store, config.state_dir)
        party.leases = leases
        yield OfflineCommands(party, config, observe)


class OfflineCommands:
    """What an operator does with bundles.

    Args:
        party: This party.
        config: The node's configuration.
        observe: Is told what happens.
    """

    def __init__(self, party: LocalParty, config: NodeConfig, observe: Observer) -> None:
        self._party = party
        self._store = party.store
        self._config = config
        self._trust = config.identity.trusted()
        self._asking = OfflineInitiator(party, self._trust, observe)

    def begin(self, script: Script) -> str:
        """Enters a session that a script describes, or the same one again; returns its identifier.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        definition = protocol(script.session.protocol)
        self._require_role(definition.initiator, definition)
        return self._asking.begin(script)

    def export(self, session: str, folder: Path) -> Exported:
        """Does what this node has to do in a session, and writes what the other party needs then.

        Args:
            session: The session; empty for the one that was entered last.
            folder: Where the bundle goes.

        Raises:
            ComityError: There is nothing to export, or the session cannot go on.
        """
        if not folder.is_dir():
            raise MissingFile(
                "the folder for the bundle is missing",
                expected=folder,
                received="no folder",
                action="name one with --out",
            )
        kept = self._chosen(session)
        contract, definition = stored_contract(kept)
        if kept.own["role"] == definition.initiator:
            (receiver,) = contract.acceptors
            bundle = self._asking.bundle(kept)
        else:
            if not kept.is_on:
                raise InvalidValue(
                    f"session {kept.session} is over",
                    expected="an active one",
                    received=kept.state,
                    action="nothing is left to do here",
                )
            receiver = contract.initiator
            bundle = self._helping(definition).bundle(kept)
        label = Label(receiver, contract.session, contract.hash)
        ending = ending_named(bundle.ending) or ""
        path = folder / f"{contract.session}-{ending or f'round-{bundle.round}'}-{self._party.name}.bundle"
        size = write_bundle(path, label, bundle, self._party.signer, self._party.name)
        return Exported(
            contract.session, bundle.round, contract.rounds, receiver, path, len(bundle.blobs), size, ending
        )

    def take(self, path: Path) -> Imported:
        """Takes a bundle; one that was taken before changes nothing.

        Raises:
            ComityError: It is not for this node, not from a party that it trusts, or does not fit.
        """
        with opened_bundle(path, self._key_of) as bundle:
            if bundle.label.receiver != self._party.name:
                raise UnknownParty(
                    f"the bundle is for {bundle.label.receiver}",
                    expected=f"one for {self._party.name}",
                    received=f"one from {bundle.sender} for {bundle.label.receiver}",
                    action="carry it there",
                )
            kept = self._store.find(bundle.label.session)
            export_due, result = self._taken(kept, bundle)
            session = bundle.label.session
            model = None if result is None else self._config.state_dir / "sessions" / session
            return Imported(session, bundle.round, bundle.sender, bundle.blobs, export_due, result, model)

    def _key_of(self, sender: str) -> str:
        """The receipt key that a bundle's sender is known by."""
        if sender == self._party.name:
            raise UnknownParty(
                "that is this node's own bundle",
                expected="one of the other party's",
                received=f"one from {sender}",
                action="carry it to them, and import what they answer",
            )
        return self._trust.vouched_key(sender)

    def _chosen(self, session: str) -> StoredSession:
        """The session of an identifier; without one, the last active one, or the last there was."""
        known = self._store.sessions()
        kept = self._store.find(session) if session else None
        if not session:
            on = [each for each in known if each.is_on and (each.is_helped or is_offline(each))]
            kept = next(reversed(on or known), None)
        if kept is None:
            raise InvalidValue(
                "there is no such session here",
                expected=", ".join(each.session for each in known) or "none yet",
                received=session or "none",
                action="comity offline export --script SCRIPT begins one, at the node that asks",
            )
        return kept

    def _taken(self, kept: StoredSession | None, bundle: ReceivedBundle) -> tuple[bool, SessionResult | None]:
        """Whether an export is to follow a bundle, and what the session came to."""
        if kept is None:
            self._proposed(bundle)
            return True, None
        contract, definition = stored_contract(kept)
        others = [each for each in (contract.initiator, *contract.acceptors) if each != self._party.name]
        if bundle.sender not in others or contract.hash != bundle.label.contract_hash:
            raise ContractMismatch(
                "the bundle belongs to another contract",
                expected=f"{contract.hash}, with {', '.join(others)}",
                received=f"{bundle.label.contract_hash}, from {bundle.sender}",
                action="ask whom it came from which session it is for",
            )
        asks = kept.own["role"] == definition.initiator
        if not kept.is_on:
            # Who asked may still have to say so.
            return asks, None
        if asks:
            return True, self._asking.take(kept, bundle)
        if bundle.round == 0 and not bundle.ending:
            self._proposed(bundle)
            return True, None
        return self._helping(definition).take(kept, bundle), None

    def _proposed(self, bundle: ReceivedBundle) -> None:
        """Takes a bundle that proposes a session."""
        call = next(iter(bundle.calls), None) if bundle.round == 0 and not bundle.ending else None
        if call is None:
            raise UnknownSession(
                "no such session here",
                expected="a session that was agreed on",
                received=bundle.label.session,
                action="import the bundle that proposes it first",
            )
        proposal = unpacked(call.request, sessions_pb2.Proposal)
        definition = protocol(protocol_named(proposal.contract))
        self._helping(definition).accept(bundle.sender, proposal, bundle.label)

    def _helping(self, definition: ProtocolDefinition) -> OfflineAcceptor:
        self._require_role(definition.acceptor, definition)
        return OfflineAcceptor(self._party, definition.acceptor)

    def _require_role(self, needed: str, definition: ProtocolDefinition) -> None:
        role = self._config.role or (definition.acceptor if self._config.listen else definition.initiator)
        if role != needed:
            raise InvalidValue(
                "this node has another part",
                expected=f"a {needed} node",
                received=f"a {role} node",
                action="name the configuration of the right node with --config",
            )
