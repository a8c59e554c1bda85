"""The side of an offline session that asks: proposes, works until an answer is due, and takes the answer."""

from __future__ import annotations

import secrets
from dataclasses import replace

from google.protobuf.any_pb2 import Any as AnyMessage

from comity.contract import Contract, Membership
from comity.errors import InvalidValue, RoundOutOfOrder, TrainingDiverged
from comity.ledger.ledger import WHOLE
from comity.ledger.receipts import require_pinned
from comity.node.offline.bindings import require_offline
from comity.node.party import LocalParty
from comity.node.sessions.ending import SessionEnds
from comity.node.sessions.initiator import draft_contract, stored
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.result import SessionResult
from comity.node.sessions.room import promise
from comity.node.sessions.script import Script
from comity.protocol.definition import ProtocolDefinition
from comity.session.events import Observer
from comity.session.waiting import OFFLINE, Waits
from comity.store.store import StoredSession
from comity.transport.bindings.offline import OfflineChannel
from comity.transport.bundles import AnswerDue, Bundle, ReceivedBundle, bundled, unpacked
from comity.transport.negotiation import decode_agreement, encode_proposal
from comity.transport.sessions import PROPOSE, ending_of
from comity.transport.trust import Trust
from comity.wire.v1 import sessions_pb2


class OfflineInitiator:
    """The asking side of a node's offline sessions.

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
        require_offline(definition, contract.acceptors)
        own = party.membership(definition.initiator, contract)
        for acceptor in contract.acceptors:
            self._trust.vouched_key(acceptor)
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
        party.review(contract, own, contract.acceptors, active=0)
        # What this party itself cannot do, it does not ask for.
        party.task(contract)
        with self._store.transaction():
            self._store.save(stored(contract, own))
            Waits(self._store, contract.session).begin(OFFLINE, contract.acceptors[0])
        return contract.session

    def bundle(self, kept: StoredSession) -> Bundle:
        """What the acceptor needs now, once this side's part is done.

        Raises:
            ComityError: The session cannot go on, or there is nothing to say.
        """
        contract, definition = stored_contract(kept)
        if kept.is_on and not kept.peers:
            gate = self._party.gate(contract, contract.acceptors[0])
            own = Membership.model_validate(kept.own)
            proposal = encode_proposal(contract, own, self._party.signer, definition)
            gate.send(proposal)
            return Bundle(0, [bundled(PROPOSE, proposal)])
        if kept.is_on:
            bundle, _ = self._work(kept, contract, definition, None)
            if bundle is not None:
                return bundle
            kept = self._store.find(contract.session) or kept
        return self._farewell(kept)

    def take(self, kept: StoredSession, bundle: ReceivedBundle) -> SessionResult | None:
        """Takes what the acceptor answered; returns what the session came to, where it is over now.

        Raises:
            RoundOutOfOrder: It answers a round that is not on.
            ComityError: It does not fit.
        """
        contract, definition = stored_contract(kept)
        done = self._party.rounds_finished(contract.session)
        if bundle.round == 0:
            if not kept.peers:
                self._take_agreement(kept, contract, definition, bundle)
            return None
        if not kept.peers or bundle.round > done + 1:
            raise RoundOutOfOrder(
                "the bundle answers a round that is not on",
                expected=f"round {done + 1 if kept.peers else 0}",
                received=f"round {bundle.round}",
                action="import the earlier ones first",
            )
        if bundle.round == done + 1:
            return self._work(kept, contract, definition, bundle)[1]
        # It was taken; where it was the last, the end may have been cut short.
        return self._work(kept, contract, definition, None)[1] if done == contract.rounds else None

    def _take_agreement(
        self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition, bundle: ReceivedBundle
    ) -> None:
        own = Membership.model_validate(kept.own)
        for call in bundle.calls:
            agreement = unpacked(next(iter(call.answers), AnyMessage()), sessions_pb2.Agreement)
            peer = decode_agreement(agreement, contract, bundle.sender, definition)
            require_pinned(peer, self._trust.vouched_key(peer.party))
            promised = promise(self._party, contract, own, peer, definition)
            gate = self._party.gate(contract, peer.party)
            with self._store.transaction():
                gate.deliver_all(WHOLE, "contract")
                gate.admit(agreement)
                self._store.save(replace(kept, peers=(peer.model_dump(mode="json"),), promised=promised))

    def _work(
        self, kept: StoredSession, contract: Contract, definition: ProtocolDefinition, answer: ReceivedBundle | None
    ) -> tuple[Bundle | None, SessionResult | None]:
        """Goes on with a session: to the end of the round that is answered, or until an answer is due.

        Returns:
            What is to be shipped, where an answer is due; and what the session came to, where it is over.
        """
        party = self._party
        own, peer = Membership.model_validate(kept.own), Membership.model_validate(kept.peers[0])
        party.enter(contract.session, lambda: None)
        self._observe(definition.started(contract, definition.initiator, contract.acceptors))
        context = party.peer_context(party.session_context(contract, own, self._observe, [peer]), peer)
        channel = OfflineChannel(context, party.offline_record(contract.session), answer)
        role = definition.load().connected([context], [channel])
        try:
            for _ in role.work():
                if answer is not None and party.rounds_finished(contract.session) < contract.rounds:
                    return None, None
        except AnswerDue as due:
            return due.bundle, None
        except TrainingDiverged as error:
            # The acceptor hears of it with the last bundle.
            self._ends.fail(contract.session, error, self._observe)
            raise
        return None, self._ends.finish(contract, self._observe, outcome=role.outcome())

    def _farewell(self, kept: StoredSession) -> Bundle:
        """The last bundle of a session that is over here."""
        if not kept.peers:
            raise InvalidValue(
                f"no acceptor has agreed to session {kept.session}",
                expected="an active session, or one that was",
                received=kept.state,
                action="no acceptor has to be told; begin another session",
            )
        rounds = int(str(kept.result.get("rounds_finished", 0)))
        return Bundle(rounds + 1, self._party.offline_record(kept.session).calls, ending=ending_of(kept.state))
