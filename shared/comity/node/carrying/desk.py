"""Where an operator exports and imports, at a node that stands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comity.errors import ContractMismatch, InvalidValue, MissingFile, StorageFailed, UnknownParty, UnknownSession
from comity.node.asking import is_carried, stored_contract
from comity.node.carrying.asking import Asking
from comity.node.carrying.helping import Helping
from comity.node.config import NodeConfig
from comity.node.garbage import exclusive
from comity.node.party import LocalParty, own_secret
from comity.node.registry import protocol
from comity.node.result import SessionResult
from comity.node.script import Script
from comity.session.events import Observer
from comity.session.sql_store import SqlStore
from comity.session.store import StoredSession
from comity.transport.parcels import Label, ReceivedParcel, opened_parcel, write_parcel
from comity.transport.protocol import ProtocolDefinition
from comity.transport.sessions import ending_named
from comity.wire.v1 import sessions_pb2


@dataclass(frozen=True, slots=True)
class Exported:
    """A parcel that was written.

    Attributes:
        session: Its session.
        round: Its round; 0 for what comes before the first.
        rounds: Rounds that were bought.
        receiver: Party to carry it to.
        file: The file.
        checkpoints: Checkpoints in it.
        bytes: Its length.
        ending: How the session ended, where this is the last parcel; else empty.
    """

    session: str
    round: int
    rounds: int
    receiver: str
    file: Path
    checkpoints: int
    bytes: int
    ending: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A parcel that was taken.

    Attributes:
        session: Its session.
        round: Its round; 0 for what comes before the first.
        sender: Party that made it.
        checkpoints: Checkpoints in it.
        export_due: Whether an export is to follow here.
        result: What the session came to, where it is over now.
        model: Folder with the session's model, where it is over now.
    """

    session: str
    round: int
    sender: str
    checkpoints: int
    export_due: bool
    result: SessionResult | None = None
    model: Path | None = None


@contextlib.contextmanager
def carrying(config: NodeConfig, observe: Observer) -> Iterator[Carrying]:
    """Opens what a node keeps, while its daemon is stopped.

    Args:
        config: The node's configuration.
        observe: Is told what happens.

    Raises:
        StateInUse: The daemon runs.
        StorageError: What the node keeps cannot be read or written.
        MissingFile: Nothing says whom this node trusts.
    """
    folder = config.state_dir / "blobs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        action = "make it writable, or configure another state_dir"
        raise StorageFailed(
            "state_dir cannot be used", expected="a writable folder", received=error, action=action
        ) from error
    with exclusive(config.state_dir), contextlib.closing(SqlStore(config.store_url)) as store:
        party = LocalParty(config.party, config, own_secret(config, config.state_dir), store, folder)
        yield Carrying(party, config, observe)


class Carrying:
    """What an operator does with parcels.

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
        self._asking = Asking(party, self._trust, observe)

    def begin(self, script: Script) -> str:
        """Enters a session that a script describes, or the same one again; returns its identifier.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        definition = protocol(script.session.protocol)
        self._require_role(definition.asker, definition)
        return self._asking.begin(script)

    def export(self, session: str, folder: Path) -> Exported:
        """Does what this node has to do in a session, and writes what the other party needs then.

        Args:
            session: The session; empty for the one that was entered last.
            folder: Where the parcel goes.

        Raises:
            ComityError: There is nothing to export, or the session cannot go on.
        """
        if not folder.is_dir():
            raise MissingFile(
                "the folder for the parcel is missing",
                expected=folder,
                received="no folder",
                action="name one with --out",
            )
        kept = self._chosen(session)
        contract, definition = stored_contract(kept)
        if kept.own["role"] == definition.asker:
            (receiver,) = contract.helpers
            shipment = self._asking.shipment(kept)
        else:
            if not kept.is_on:
                raise InvalidValue(
                    f"session {kept.session} is over",
                    expected="one that is on",
                    received=kept.state,
                    action="nothing is left to do here",
                )
            receiver = contract.asker
            shipment = self._helping(definition).shipment(kept)
        label = Label(receiver, contract.session, contract.hash)
        ending = ending_named(shipment.ending) or ""
        path = folder / f"{contract.session}-{ending or f'round-{shipment.round}'}-{self._party.name}.parcel"
        size = write_parcel(path, label, shipment, self._party.signer, self._party.name)
        return Exported(
            contract.session, shipment.round, contract.rounds, receiver, path, len(shipment.blobs), size, ending
        )

    def take(self, path: Path) -> Imported:
        """Takes a parcel; one that was taken before changes nothing.

        Raises:
            ComityError: It is not for this node, not from a party that it trusts, or does not fit.
        """
        with opened_parcel(path, self._key_of) as parcel:
            if parcel.label.receiver != self._party.name:
                raise UnknownParty(
                    f"the parcel is for {parcel.label.receiver}",
                    expected=f"one for {self._party.name}",
                    received=f"one from {parcel.sender} for {parcel.label.receiver}",
                    action="carry it there",
                )
            kept = self._store.find(parcel.label.session)
            export_due, result = self._taken(kept, parcel)
            session = parcel.label.session
            model = None if result is None else self._config.state_dir / "sessions" / session
            return Imported(session, parcel.round, parcel.sender, parcel.checkpoints, export_due, result, model)

    def _key_of(self, sender: str) -> str:
        """The receipt key that a parcel's sender is known by."""
        if sender == self._party.name:
            raise UnknownParty(
                "that is this node's own parcel",
                expected="one of the other party's",
                received=f"one from {sender}",
                action="carry it to them, and import what they answer",
            )
        return self._trust.vouched_key(sender)

    def _chosen(self, session: str) -> StoredSession:
        """The session of an identifier; without one, the last that is on, or that was."""
        known = self._store.sessions()
        kept = self._store.find(session) if session else None
        if not session:
            on = [each for each in known if each.is_on and self._is_carried(each)]
            kept = next(reversed(on or known), None)
        if kept is None:
            raise InvalidValue(
                "there is no such session here",
                expected=", ".join(each.session for each in known) or "none yet",
                received=session or "none",
                action="comity round export --script SCRIPT begins one, at the node that asks",
            )
        return kept

    def _is_carried(self, kept: StoredSession) -> bool:
        return kept.own["role"] == stored_contract(kept)[1].helper or is_carried(kept)

    def _taken(self, kept: StoredSession | None, parcel: ReceivedParcel) -> tuple[bool, SessionResult | None]:
        """Whether an export is to follow a parcel, and what the session came to."""
        if kept is None:
            self._proposed(parcel)
            return True, None
        contract, definition = stored_contract(kept)
        others = [each for each in (contract.asker, *contract.helpers) if each != self._party.name]
        if parcel.sender not in others or contract.hash != parcel.label.contract_hash:
            raise ContractMismatch(
                "the parcel belongs to another contract",
                expected=f"{contract.hash}, with {', '.join(others)}",
                received=f"{parcel.label.contract_hash}, from {parcel.sender}",
                action="ask whom it came from which session it is for",
            )
        asks = kept.own["role"] == definition.asker
        if not kept.is_on:
            # Who asked may still have to say so.
            return asks, None
        if asks:
            return True, self._asking.take(kept, parcel)
        if parcel.round == 0 and not parcel.ending:
            self._proposed(parcel)
            return True, None
        return self._helping(definition).take(kept, parcel), None

    def _proposed(self, parcel: ReceivedParcel) -> None:
        """Takes a parcel that proposes a session."""
        proposals = parcel.messages(sessions_pb2.Proposal) if parcel.round == 0 and not parcel.ending else iter(())
        proposal = next(proposals, None)
        if proposal is None:
            raise UnknownSession(
                "no such session here",
                expected="a session that was agreed on",
                received=parcel.label.session,
                action="import the parcel that proposes it first",
            )
        self._helping(protocol(proposal.contract.protocol)).accept(parcel.sender, proposal)

    def _helping(self, definition: ProtocolDefinition) -> Helping:
        self._require_role(definition.helper, definition)
        return Helping(self._party, definition.helper)

    def _require_role(self, needed: str, definition: ProtocolDefinition) -> None:
        role = self._config.role or (definition.helper if self._config.listen else definition.asker)
        if role != needed:
            raise InvalidValue(
                "this node has another part",
                expected=f"a {needed} node",
                received=f"a {role} node",
                action="name the configuration of the right node with --config",
            )
