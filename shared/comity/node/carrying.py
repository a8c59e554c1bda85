"""Sessions whose rounds somebody carries: an operator exports a parcel, and imports the other party's, at a node that stands.

What an export writes follows from what the node keeps, so it can be made again at any time, and an import does what calls
would do, each of which may be repeated. Neither needs a record of how far it came.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from comity.contract import Contract, Membership
from comity.errors import (
    ContractMismatch,
    InvalidValue,
    MissingFile,
    RoundOutOfOrder,
    StorageFailed,
    TrainingDiverged,
    UnknownParty,
    UnknownSession,
    UnsupportedProtocol,
)
from comity.node.asking import CARRIED, draft_contract, is_carried, stored, stored_contract
from comity.node.config import NodeConfig
from comity.node.failures import failure
from comity.node.garbage import exclusive
from comity.node.helping import Helper
from comity.node.party import LocalParty, own_secret
from comity.node.registry import protocol
from comity.node.result import SessionResult, summarize
from comity.node.script import Script
from comity.session.events import Observer
from comity.session.gate import EgressGate
from comity.session.hosting import HostedSession, HostedSessions
from comity.session.journal import Journal
from comity.session.notary import Notary
from comity.session.receipts import require_pinned
from comity.session.sql_store import SqlStore
from comity.session.store import StoredSession
from comity.session.worker import AtOnce
from comity.transport.parcels import AnswerDue, Label, ReceivedParcel, Shipment, opened_parcel, write_parcel
from comity.transport.protocol import Carriage, ProtocolDefinition
from comity.transport.sessions import (
    decode_agreement,
    encode_agreement,
    encode_proposal,
    ending_named,
    ending_of,
)
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
        answered: Whether the next thing to do is an export.
        result: What the session came to, where it is over now.
    """

    session: str
    round: int
    sender: str
    checkpoints: int
    answered: bool
    result: SessionResult | None = None


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
    try:
        (config.state_dir / "blobs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        action = "make it writable, or configure another state_dir"
        raise StorageFailed(
            "state_dir cannot be used", expected="a writable folder", received=error, action=action
        ) from error
    with exclusive(config.state_dir), contextlib.closing(SqlStore(config.store_url)) as store:
        party = LocalParty(
            config.party, config, own_secret(config, config.state_dir), store, config.state_dir / "blobs"
        )
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
        self._observe = observe
        self._trust = config.identity.trusted()

    def begin(self, script: Script) -> str:
        """Enters a session that a script describes, or the same one again; returns its identifier.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        party = self._party
        contract, definition = draft_contract(script, party, f"s-{secrets.token_hex(6)}")
        _carriage(definition)
        self._require_role(definition.asker, definition)
        own = party.membership(definition.asker, contract.terms)
        for helper in contract.helpers:
            self._trust.vouched_key(helper)
        kept = self._store.find(contract.session)
        if kept is not None:
            if stored_contract(kept)[0].hash != contract.hash:
                raise InvalidValue(
                    "the session's id is taken",
                    expected="a new id",
                    received=contract.session,
                    action="leave out session.id, or give another",
                )
            return contract.session
        party.config.policy.review(contract, own, contract.helpers, active=0)
        # What this party itself cannot do, it does not ask for.
        party.task(contract)
        with self._store.transaction():
            self._store.save(stored(contract, own))
            Journal(self._store, contract.session).append(CARRIED, 0)
        return contract.session

    def export(self, session: str, folder: Path) -> Exported:
        """Does what this node has to do in a session, and writes what the other party needs then.

        Args:
            session: The session; empty for the one that was entered last.
            folder: Where the parcel goes.

        Raises:
            ComityError: There is nothing to export, or the session cannot go on.
        """
        if not folder.is_dir():
            raise MissingFile("the folder for the parcel is missing", expected=folder, received="no folder")
        kept = self._chosen(session)
        contract, definition = stored_contract(kept)
        carriage = _carriage(definition)
        if kept.own["role"] == definition.helper:
            receiver, shipment = self._answered(kept, contract, carriage)
        else:
            (receiver,) = contract.helpers
            shipment = self._asked(kept, contract, definition)
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
        with opened_parcel(path, self._trust.vouched_key) as parcel:
            if parcel.label.receiver != self._party.name:
                raise UnknownParty(
                    f"the parcel is for {parcel.label.receiver}",
                    expected=f"one for {self._party.name}",
                    received=f"one from {parcel.sender} for {parcel.label.receiver}",
                    action="carry it there",
                )
            kept = self._store.find(parcel.label.session)
            if kept is None:
                return self._take_proposal(parcel)
            contract, definition = stored_contract(kept)
            other = (contract.asker, *contract.helpers)
            if parcel.sender not in other or contract.hash != parcel.label.contract_hash:
                raise ContractMismatch(
                    "the parcel belongs to another contract",
                    expected=f"{contract.hash}, with {', '.join(each for each in other if each != self._party.name)}",
                    received=f"{parcel.label.contract_hash}, from {parcel.sender}",
                    action="ask whom it came from which session it is for",
                )
            if kept.state != "active":
                # Who asked may still have to say so.
                return _imported(parcel, answered=kept.own["role"] == definition.asker)
            if kept.own["role"] == definition.asker:
                return self._take_answer(kept, contract, definition, parcel)
            if parcel.round == 0 and not parcel.ending:
                return self._take_proposal(parcel)
            return self._take_calls(kept, definition, parcel)

    def model_folder(self, session: str) -> Path:
        """Where a session's model is, once it is over."""
        return self._config.state_dir / "sessions" / session

    def _chosen(self, session: str) -> StoredSession:
        if session:
            kept = self._store.find(session)
        else:
            known = self._store.sessions()
            on = [each for each in known if each.state == "active" and self._is_carried(each)]
            kept = next(reversed(on or known), None)
        if kept is None:
            known_names = ", ".join(each.session for each in self._store.sessions()) or "none yet"
            raise InvalidValue(
                "there is no such session here",
                expected=known_names,
                received=session or "none",
                action="comity round export --script SCRIPT begins one, at the node that asks",
            )
        return kept

    def _is_carried(self, kept: StoredSession) -> bool:
        _, definition = stored_contract(kept)
        return kept.own["role"] == definition.helper or is_carried(self._store, kept.session)

    # The party that asks.

    def _asked(self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition) -> Shipment:
        """What the helper needs now."""
        own = Membership.model_validate(kept.own)
        if kept.state == "active" and not kept.peers:
            gate = EgressGate(contract, self._config.policy, self._store, contract.helpers[0])
            proposal = encode_proposal(contract, own, self._party.signer, definition)
            gate.intend("contract", "proposal", proposal.ByteSize())
            return Shipment(0, [proposal])
        if kept.state == "active":
            shipment, _ = self._work(kept, contract, definition, None)
            if shipment is not None:
                return shipment
            kept = self._store.find(contract.session) or kept
        return self._farewell(kept, contract, definition)

    def _farewell(self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition) -> Shipment:
        """The last parcel of a session that is over here."""
        if not kept.peers:
            raise InvalidValue(
                f"nobody has agreed to session {kept.session}", expected="an agreement", received=kept.state
            )
        rounds = int(str(kept.result.get("rounds_finished", 0)))
        peer = Membership.model_validate(kept.peers[0])
        notary = Notary(self._party.signer, self._store, contract, peer)
        return Shipment(rounds + 1, _carriage(definition).last(notary, rounds), ending=ending_of(kept.state))

    def _take_answer(
        self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition, parcel: ReceivedParcel
    ) -> Imported:
        if parcel.round == 0:
            if not kept.peers:
                self._take_agreement(kept, contract, definition, parcel)
            return _imported(parcel, answered=True)
        done = self._party.rounds_finished(contract.session)
        if not kept.peers or parcel.round > done + 1:
            raise RoundOutOfOrder(
                "the parcel answers a round that is not on",
                expected=f"round {done + 1 if kept.peers else 0}",
                received=f"round {parcel.round}",
                action="import the earlier ones first",
            )
        result = None
        if parcel.round > done:
            _, result = self._work(kept, contract, definition, parcel)
        elif done == contract.rounds:
            # It was taken whole, and the end was cut short.
            _, result = self._work(kept, contract, definition, None)
        return _imported(parcel, answered=True, result=result)

    def _take_agreement(
        self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition, parcel: ReceivedParcel
    ) -> None:
        own = Membership.model_validate(kept.own)
        for agreement in parcel.messages(sessions_pb2.Agreement):
            peer = decode_agreement(agreement, contract, parcel.sender, definition)
            require_pinned(peer, self._trust.vouched_key(peer.party))
            self._party.require_room(contract, own, peer, definition)
            gate = EgressGate(contract, self._config.policy, self._store, peer.party)
            with self._store.transaction():
                gate.deliver("contract", "proposal")
                gate.admit("contract", "agreement", agreement.ByteSize())
                self._store.save(replace(kept, peers=(peer.model_dump(mode="json"),)))

    def _work(
        self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition, answer: ReceivedParcel | None
    ) -> tuple[Shipment | None, SessionResult | None]:
        """Goes on with a session: to the end of the round that is answered, or until an answer is due.

        Returns:
            What is to be shipped, where an answer is due; and what the session came to, where it is over.
        """
        party = self._party
        own, peer = Membership.model_validate(kept.own), Membership.model_validate(kept.peers[0])
        self._observe(definition.started(contract, definition.asker, contract.helpers))
        seat = party.seat(party.place(contract, own, self._observe, [peer]), peer)
        role = _carriage(definition).ask(seat, answer)
        try:
            for _ in role.work():
                if answer is not None and party.rounds_finished(contract.session) < contract.rounds:
                    return None, None
        except AnswerDue as due:
            return due.shipment, None
        except TrainingDiverged as error:
            party.end(contract.session, "failed", failure(error))
            raise
        outcome = role.outcome()
        wall_s = (datetime.now(UTC) - datetime.fromisoformat(kept.begun)).total_seconds()
        result = summarize(contract, outcome, self._store, wall_s)
        party.keep_result(contract.session, outcome, result.to_json())
        party.end(contract.session, "finished", result.to_json())
        self._observe(definition.finished(contract, result.to_json()))
        return None, result

    # The party that helps.

    def _helper(self, definition: ProtocolDefinition) -> tuple[Helper, HostedSessions]:
        self._require_role(definition.helper, definition)
        hosted = HostedSessions()
        helper = Helper(self._party, definition.helper, hosted, AtOnce)
        helper.restore()
        return helper, hosted

    def _answered(self, kept: StoredSession, contract: Contract, carriage: Carriage) -> tuple[str, Shipment]:
        """Who is answered, and what."""
        if kept.state != "active":
            raise InvalidValue(f"session {kept.session} is over", expected="one that is on", received=kept.state)
        _, hosted = self._helper(protocol(contract.protocol))
        session = hosted.get(contract.session, contract.asker, contract.hash)
        shipment = carriage.answer(session) or self._agreement(session)
        return contract.asker, shipment

    def _agreement(self, session: HostedSession) -> Shipment:
        agreement = encode_agreement(session.contract, session.seat.own, self._party.signer)
        session.gate.intend("contract", "agreement", agreement.ByteSize())
        return Shipment(0, [agreement])

    def _take_proposal(self, parcel: ReceivedParcel) -> Imported:
        if parcel.round != 0 or parcel.ending:
            raise UnknownSession(
                "no such session here",
                expected="a session that was agreed on",
                received=parcel.label.session,
                action="import the parcel that proposes it first",
            )
        for proposal in parcel.messages(sessions_pb2.Proposal):
            definition = protocol(proposal.contract.protocol)
            _carriage(definition)
            helper, _ = self._helper(definition)
            session = helper.accept(parcel.sender, proposal)
            session.gate.admit("contract", "proposal", proposal.ByteSize())
        return _imported(parcel, answered=True)

    def _take_calls(self, kept: StoredSession, definition: ProtocolDefinition, parcel: ReceivedParcel) -> Imported:
        helper, hosted = self._helper(definition)
        session = hosted.get(kept.session, parcel.sender, parcel.label.contract_hash)
        # Whoever quotes the contract has the agreement.
        session.gate.deliver_all(0)
        if session.seat.notary.made("receipt", parcel.round) is None:
            _carriage(definition).take(session, parcel)
        ending = ending_named(parcel.ending)
        if ending is not None:
            helper.finish(session, ending)
        return _imported(parcel, answered=ending is None)

    def _require_role(self, needed: str, definition: ProtocolDefinition) -> None:
        role = self._config.role or (definition.helper if self._config.listen else definition.asker)
        if role != needed:
            raise InvalidValue(
                "this node has another part",
                expected=f"a {needed} node",
                received=f"a {role} node",
                action="name the configuration of the right node with --config",
            )


def _imported(parcel: ReceivedParcel, *, answered: bool, result: SessionResult | None = None) -> Imported:
    return Imported(parcel.label.session, parcel.round, parcel.sender, parcel.checkpoints, answered, result)


def _carriage(definition: ProtocolDefinition) -> Carriage:
    """How a protocol's rounds are carried.

    Raises:
        UnsupportedProtocol: They cannot be.
    """
    if definition.carriage is None:
        raise UnsupportedProtocol(
            f"the rounds of {definition.name} cannot be carried",
            expected="a protocol in which one party asks one other, such as assisted_learning",
            received=definition.name,
            action="run the session over the network",
        )
    return definition.carriage
