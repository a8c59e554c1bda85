"""The side of a carried session that helps: the node's own role, called by parcels instead of peers."""

from __future__ import annotations

from comity.errors import InvalidValue
from comity.node.asking import stored_contract
from comity.node.carrying.carriages import carriage_of, require_carried
from comity.node.helping import Helper
from comity.node.party import LocalParty
from comity.node.registry import protocol
from comity.session.hosting import HostedSession, HostedSessions
from comity.session.store import StoredSession
from comity.session.waiting import OFFLINE, Waits
from comity.session.worker import AtOnce
from comity.transport.parcels import ReceivedParcel, Shipment
from comity.transport.sessions import encode_agreement, ending_named
from comity.wire.v1 import sessions_pb2


class Helping:
    """The helping side of a node's carried sessions.

    Args:
        party: This party.
        role: The role in which it helps.
    """

    def __init__(self, party: LocalParty, role: str) -> None:
        self._party = party
        self._hosted = HostedSessions(party.store)
        # Whoever imports a proposal by hand has decided on it.
        self._helper = Helper(party, role, self._hosted, AtOnce, asks=False)
        self._helper.restore()

    def accept(self, sender: str, proposal: sessions_pb2.Proposal) -> None:
        """Takes a proposal; the same one again changes nothing.

        Raises:
            RefusedError: The contract is refused, with the reason.
            ComityError: It does not fit.
        """
        require_carried(protocol(proposal.contract.protocol), proposal.contract.helpers)
        session = self._helper.accept(sender, proposal)
        if session is None:
            raise InvalidValue(
                "the proposal waits for this node's approval",
                expected="a proposal that was accepted",
                received=proposal.contract.session,
                action="start the node, decide with comity sessions accept or refuse, and stop it again",
            )
        session.gate.admit("contract", "proposal", proposal.ByteSize())
        Waits(self._party.store, session.contract.session).begin(OFFLINE, sender)

    def take(self, kept: StoredSession, parcel: ReceivedParcel) -> bool:
        """Does what the asker's parcel asks; returns whether there is something to answer.

        Raises:
            ComityError: It does not fit; what of it fitted is done.
        """
        _, definition = stored_contract(kept)
        session = self._hosted.get(kept.session, parcel.sender, parcel.label.contract_hash)
        # Whoever quotes the contract has the agreement.
        session.gate.deliver_all(0)
        if session.seat.notary.made("receipt", parcel.round) is None:
            carriage_of(definition).take(session, parcel)
        ending = ending_named(parcel.ending)
        if ending is not None:
            self._helper.finish(session, ending)
        return ending is None

    def shipment(self, kept: StoredSession) -> Shipment:
        """What answers the asker, once this side's part is done.

        Raises:
            ComityError: The session cannot go on, or is over.
        """
        contract, definition = stored_contract(kept)
        session = self._hosted.get(contract.session, contract.asker, contract.hash)
        return carriage_of(definition).answer(session) or self._agreement(session)

    def _agreement(self, session: HostedSession) -> Shipment:
        agreement = encode_agreement(session.contract, session.seat.own, self._party.signer)
        session.gate.intend("contract", "agreement", agreement.ByteSize())
        return Shipment(0, [agreement])
