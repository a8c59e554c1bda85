"""The side of an offline session that helps: the node's own role, called by bundles instead of peers."""

from __future__ import annotations

from comity.errors import ContractMismatch, InvalidValue
from comity.ledger.ledger import WHOLE
from comity.node.offline.bindings import require_offline
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.acceptor import Acceptor
from comity.node.sessions.kept import stored_contract
from comity.protocol.registry import protocol
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.waiting import OFFLINE, Waits
from comity.session.worker import InlineWorker
from comity.store.store import StoredSession
from comity.transport.bindings import offline
from comity.transport.bundles import Bundle, Label, ReceivedBundle, bundled
from comity.transport.negotiation import decode_proposal, encode_agreement, protocol_named
from comity.transport.sessions import PROPOSE, ending_named
from comity.wire.v1 import sessions_pb2


class OfflineAcceptor:
    """The helping side of a node's offline sessions.

    Args:
        party: This party.
        role: The role in which it helps.
    """

    def __init__(self, party: LocalParty, role: str) -> None:
        self._party = party
        self._accepted = AcceptedSessions(party, role, SessionRegistry(party.store), InlineWorker)
        # The operator who imports a proposal has decided on it.
        self._acceptor = Acceptor(party, self._accepted, asks=False)
        self._accepted.restore()

    def accept(self, sender: str, proposal: sessions_pb2.Proposal, label: Label) -> None:
        """Takes a proposal; the same one again changes nothing.

        Args:
            sender: Party that the bundle is from.
            proposal: What it proposes.
            label: What the bundle says that it is about.

        Raises:
            ContractMismatch: It is about another session.
            RefusedError: The contract is refused, with the reason.
            ComityError: It does not fit.
        """
        definition = protocol(protocol_named(proposal.contract))
        contract, _ = decode_proposal(proposal, definition)
        require_offline(definition, contract.acceptors)
        if (contract.session, contract.hash) != (label.session, label.contract_hash):
            raise ContractMismatch(
                "the bundle proposes another session than it says",
                expected=f"{label.session}, {label.contract_hash}",
                received=f"{contract.session}, {contract.hash}",
                action=f"ask {sender} for the bundle as it was exported",
            )
        session = self._acceptor.accept(sender, proposal)
        if session is None:
            raise InvalidValue(
                "the proposal waits for this node's approval",
                expected="a proposal that was accepted",
                received=proposal.contract.session,
                action="start the node, decide with comity sessions accept or refuse, and stop it again",
            )
        session.gate.admit(proposal)
        Waits(self._party.store, session.contract.session).begin(OFFLINE, sender)

    def take(self, kept: StoredSession, bundle: ReceivedBundle) -> bool:
        """Does what the initiator's bundle asks; returns whether there is something to answer.

        Raises:
            ComityError: It does not fit; what of it fitted is done.
        """
        _, definition = stored_contract(kept)
        session = self._accepted.active.get(kept.session, bundle.sender, bundle.label.contract_hash)
        # A caller that quotes the contract has the agreement.
        session.gate.deliver_all(WHOLE, "contract")
        record = self._party.offline_record(kept.session)
        offline.take(definition.load().service, session, bundle, record)
        ending = ending_named(bundle.ending)
        if ending is not None:
            self._accepted.finish(session, ending)
            record.remove()
        return ending is None

    def bundle(self, kept: StoredSession) -> Bundle:
        """What answers the initiator, once this side's part is done.

        Raises:
            ComityError: The session cannot go on, or is over.
        """
        contract, definition = stored_contract(kept)
        session = self._accepted.active.get(contract.session, contract.initiator, contract.hash)
        record = self._party.offline_record(contract.session)
        return offline.answer(definition.load().service, session, record) or self._agreement(session)

    def _agreement(self, session: AcceptedSession) -> Bundle:
        agreement = encode_agreement(session.contract, session.context.own, self._party.signer)
        session.gate.send(agreement)
        return Bundle(0, [bundled(PROPOSE, sessions_pb2.Proposal(), agreement)])
