"""The side of a carried session that asks: proposes, works until an answer is due, and takes the answer."""

from __future__ import annotations

import secrets
from dataclasses import replace

from comity.contract import Contract, Membership
from comity.errors import InvalidValue, RoundOutOfOrder, TrainingDiverged
from comity.node.asking import draft_contract, stored, stored_contract
from comity.node.carrying.carriages import carriage_of, require_carried
from comity.node.party import LocalParty
from comity.node.result import SessionResult
from comity.node.script import Script
from comity.node.sessions.ending import SessionEnds
from comity.session.events import Observer
from comity.session.gate import EgressGate
from comity.session.notary import Notary
from comity.session.receipts import require_pinned
from comity.session.store import StoredSession
from comity.session.waiting import OFFLINE, Waits
from comity.transport.parcels import AnswerDue, ReceivedParcel, Shipment
from comity.transport.protocol import ProtocolDefinition
from comity.transport.sessions import decode_agreement, encode_proposal, ending_of
from comity.transport.trust import Trust
from comity.wire.v1 import sessions_pb2


class Asking:
    """The asking side of a node's carried sessions.

    Args:
        party: This party.
        trust: Whom it trusts.
        observe: Is told what happens.
    """

    def __init__(self, party: LocalParty, trust: Trust, observe: Observer) -> None:
        self._party = party
        self._store = party.store
        self._trust = trust
        self._observe = observe
        self._ends = SessionEnds(party)

    def begin(self, script: Script) -> str:
        """Enters a session that a script describes, or the same one again; returns its identifier.

        Raises:
            ComityError: The script, or what it needs, is not to be had.
        """
        party = self._party
        contract, definition = draft_contract(script, party, f"s-{secrets.token_hex(6)}")
        require_carried(definition, contract.helpers)
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
            Waits(self._store, contract.session).begin(OFFLINE, contract.helpers[0])
        return contract.session

    def shipment(self, kept: StoredSession) -> Shipment:
        """What the helper needs now, once this side's part is done.

        Raises:
            ComityError: The session cannot go on, or there is nothing to say.
        """
        contract, definition = stored_contract(kept)
        if kept.is_on and not kept.peers:
            gate = EgressGate(contract, self._party.config.policy, self._store, contract.helpers[0])
            own = Membership.model_validate(kept.own)
            proposal = encode_proposal(contract, own, self._party.signer, definition)
            gate.intend("contract", "proposal", proposal.ByteSize())
            return Shipment(0, [proposal])
        if kept.is_on:
            shipment, _ = self._work(kept, contract, definition, None)
            if shipment is not None:
                return shipment
            kept = self._store.find(contract.session) or kept
        return self._farewell(kept, contract, definition)

    def take(self, kept: StoredSession, parcel: ReceivedParcel) -> SessionResult | None:
        """Takes what the helper answered; returns what the session came to, where it is over now.

        Raises:
            RoundOutOfOrder: It answers a round that is not on.
            ComityError: It does not fit.
        """
        contract, definition = stored_contract(kept)
        done = self._party.rounds_finished(contract.session)
        if parcel.round == 0:
            if not kept.peers:
                self._take_agreement(kept, contract, definition, parcel)
            return None
        if not kept.peers or parcel.round > done + 1:
            raise RoundOutOfOrder(
                "the parcel answers a round that is not on",
                expected=f"round {done + 1 if kept.peers else 0}",
                received=f"round {parcel.round}",
                action="import the earlier ones first",
            )
        if parcel.round == done + 1:
            return self._work(kept, contract, definition, parcel)[1]
        # It was taken; where it was the last, the end may have been cut short.
        return self._work(kept, contract, definition, None)[1] if done == contract.rounds else None

    def _take_agreement(
        self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition, parcel: ReceivedParcel
    ) -> None:
        own = Membership.model_validate(kept.own)
        for agreement in parcel.messages(sessions_pb2.Agreement):
            peer = decode_agreement(agreement, contract, parcel.sender, definition)
            require_pinned(peer, self._trust.vouched_key(peer.party))
            self._party.require_room(contract, own, peer, definition)
            gate = EgressGate(contract, self._party.config.policy, self._store, peer.party)
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
        role = carriage_of(definition).ask(seat, answer)
        try:
            for _ in role.work():
                if answer is not None and party.rounds_finished(contract.session) < contract.rounds:
                    return None, None
        except AnswerDue as due:
            return due.shipment, None
        except TrainingDiverged as error:
            # The helper hears of it with the last parcel.
            self._ends.fail(contract.session, error, self._observe)
            raise
        return None, self._ends.finish(contract, self._observe, outcome=role.outcome())

    def _farewell(self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition) -> Shipment:
        """The last parcel of a session that is over here."""
        if not kept.peers:
            raise InvalidValue(
                f"nobody has agreed to session {kept.session}",
                expected="a session that is on, or was",
                received=kept.state,
                action="there is nobody to tell",
            )
        rounds = int(str(kept.result.get("rounds_finished", 0)))
        peer = Membership.model_validate(kept.peers[0])
        notary = Notary(self._party.signer, self._store, contract, peer)
        return Shipment(rounds + 1, carriage_of(definition).last(notary, rounds), ending=ending_of(kept.state))
