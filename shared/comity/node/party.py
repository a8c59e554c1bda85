"""A party on its own machine: its data, its secret, what it keeps, and its context in a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import INITIAL, Contract, Membership
from comity.data import Splits
from comity.errors import ComityError, DataChanged, InvalidValue
from comity.node.config import PartyConfig
from comity.node.own_tasks import OwnTasks
from comity.node.sent_copies import SentCopies
from comity.node.sessions.budget import planned, spend
from comity.node.watchers import Watchers
from comity.privacy.leak_guard import widest
from comity.privacy.limits import Backing, TrainingPlan, backing, require_within
from comity.privacy.settings import Preset
from comity.protocol.registry import protocol
from comity.session import log_context
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event, Observer
from comity.session.gate import EgressGate, Guards
from comity.session.policy import NEVER_ASKED, Asked
from comity.session.presence import Presence
from comity.session.receipt_book import ReceiptBook, record_opening
from comity.session.verdicts import Verdicts
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.leases import Leases
from comity.store.secrets import Secrets
from comity.store.store import Store
from comity.tasks import agreed_model, model_outline
from comity.transport.bindings.offline import OfflineRecord


class LocalParty(OwnTasks):
    """A party and what it holds.

    Args:
        name: Name of the party.
        config: Its data and settings.
        secrets: Where its own randomness and its key come from.
        store: Its ledger, sessions and journals.
        folder: Its `state_dir`; None for a party that keeps nothing.
        guards: How it looks after what leaves, beyond contract and policy.

    Attributes:
        services: What the services of its node give to roles, by name.
        leases: Says who works on which session, where several processes may.
        watchers: Those who are told what happens in its sessions, beside their observers.
    """

    def __init__(
        self,
        name: str,
        config: PartyConfig,
        secrets: Secrets,
        store: Store,
        folder: Path | None = None,
        guards: Guards | None = None,
    ) -> None:
        super().__init__(name, config, secrets, store, folder)
        self.store = store
        self.services: Mapping[str, Any] = {}
        self.leases: Leases | None = None
        self.watchers = Watchers()
        self._guards = guards or Guards()
        self._copies = None if folder is None else SentCopies(folder)

    def protection(self, contract: Contract) -> Preset | None:
        """What protects this party's samples in a session; None where its role trains on none."""
        definition = protocol(contract.protocol)
        role = definition.acceptor if self.name in contract.acceptors else definition.initiator
        return self.config.privacy.preset if role in definition.trains else None

    def session_context(
        self,
        contract: Contract,
        own: Membership,
        observe: Observer,
        peers: Sequence[Membership] = (),
        waits: Waits | None = None,
    ) -> SessionContext:
        """This party's place in a session, with what it did in it before.

        What the session's training takes of the privacy budget counts as spent from here on.

        Args:
            contract: The contract.
            own: This party's part in it.
            observe: Is told what happens.
            peers: The others' parts, as far as they are known.
            waits: What the session waits for, where it is being watched.

        Raises:
            PolicyRefusal: The session would pass this party's privacy budget.
            RefusedError: This party's model or data do not fit the contract.
            DataChanged: They are others than when it entered the session.
            StorageError: What was kept cannot be read.
        """
        data = self.require_same_data(contract.session)
        gates: list[EgressGate] = []

        def observed(event: Event) -> None:
            log_context.note(contract.session, event, contract.rounds)
            if event.kind == "round-finished":
                sent, received = (sum(gate.delivered(way) for gate in gates) for way in ("sent", "received"))
                event = replace(event, fields={**event.fields, "bytes_sent": sent, "bytes_received": received})
            observe(event)
            self.watchers.happened(contract, event)

        # One that was kept may lead to other code since.
        self.try_apart(contract)
        plan = planned(contract, own, peers) if peers else None
        task = self.task(contract, mechanism=None if plan is None else plan[0])
        entered = spend(self.store, self.config.policy, contract, own, peers[0], plan) if peers else None
        journal = Journal(self.store, contract.session)
        # Nothing before may leave anything behind: a peer can have a session refused as often as it likes.
        if journal.data is None and data:
            journal.keep_data(data)
        log_context.begin(contract.session, self.rounds_finished(contract.session) + 1)
        self.watchers.entered(contract, self.name)
        if entered is not None:
            observe(Event("privacy", 0, entered))
        verdicts = self._verdicts(contract, task, peers, observed)
        return SessionContext(
            contract,
            own,
            task,
            self._blobs(contract.session),
            journal,
            observed,
            waits or Waits(self.store, contract.session, observe),
            gates,
            self.config.settings_of(protocol(contract.protocol)),
            self.services,
            verdicts,
        )

    def require_same_data(self, session: str, *, again: bool = False) -> str:
        """Checks that the data are those that a session was entered with, where it was.

        Args:
            session: The session.
            again: Whether to read them anew.

        Returns:
            Their digest; empty where there is none.

        Raises:
            DataChanged: They are others, or cannot be read any more.
        """
        journal = Journal(self.store, session)
        known = journal.data
        if again:
            self.holdings.reload()
        try:
            found = self.holdings.digest
        except ComityError as error:
            if known is None:
                raise
            raise _changed(self.name, session, str(error)) from error
        if known is not None and known != found:
            raise _changed(self.name, session, "others")
        return found

    def peer_context(
        self, place: SessionContext, peer: Membership, *, apart: bool = False, presence: Presence | None = None
    ) -> PeerContext:
        """This party's place opposite one peer.

        Args:
            place: Its place in the session.
            peer: The peer's part in it.
            apart: Whether what the peer sends is kept apart from what others do.
            presence: Whether the peer answers, where this party calls it.

        Raises:
            StorageError: What was kept cannot be read.
        """
        contract = place.contract
        with self.store.transaction():
            record_opening(self.store, contract, place.own, peer)
        gate = self.gate(contract, peer.party, place.verdicts, place.blobs)
        place.gates.append(gate)
        receipt_book = ReceiptBook(self.signer, self.store, contract, peer)
        blobs = self._blobs(contract.session, f"from-{peer.party}") if apart else place.blobs
        return PeerContext(place, peer, blobs, gate, receipt_book, presence or Presence())

    def gate(
        self, contract: Contract, peer: str, verdicts: Verdicts | None = None, blobs: SessionBlobs | None = None
    ) -> EgressGate:
        """What may leave to a party in a session.

        Args:
            contract: The session's contract.
            peer: The party.
            verdicts: What was found of what is trained in it; None where nothing is.
            blobs: The session's blobs, where there are any.
        """
        guards = self._guards if verdicts is None else self._guards.with_inspectors(verdicts.inspectors)
        if self._copies is not None and blobs is not None:
            # The last to look: what is held back did not leave.
            guards = guards.with_inspectors(self._copies.inspectors(contract, self.config.audit, blobs))
        # The policy as it is when something leaves: it may be another by then.
        return EgressGate(contract, lambda: self.config.policy, self.store, peer, guards)

    def review(
        self, contract: Contract, own: Membership, peers: tuple[str, ...], *, active: int, asked: Asked = NEVER_ASKED
    ) -> None:
        """Decides whether this party may enter a contract, by its policy and by how it looks after its samples.

        Args:
            contract: The contract.
            own: Its part in it.
            peers: The other parties.
            active: Sessions that it has already.
            asked: What the party that asks has already.

        Raises:
            PolicyRefusal: It may not; names the first limit that the contract passes, and what would do.
            RefusedError: The contract's models cannot be had here.
        """
        definition = protocol(contract.protocol)
        implementation = definition.load()
        sent = implementation.service.kinds_sent(by_initiator=own.role == definition.initiator)
        received_only = set(contract.egress) - sent
        self.config.policy.review(contract, own, peers, active=active, asked=asked, received_only=received_only)
        # Whatever is asked of a model from here on, its code runs in this process.
        self.try_apart(contract)
        if (planned := self._plan(contract, own)) is not None:
            require_within(self.config.privacy, planned[0], own.samples, planned[1], self.name)

    def backing(self, contract: Contract, own: Membership) -> Backing | None:
        """What of this party's samples stands behind each thing that it sends in a session; None where nobody guards it."""
        planned = self._plan(contract, own)
        return None if planned is None else backing(self.config.privacy, planned[0], own.samples, planned[1])

    def training_plan(self, contract: Contract, own: Membership) -> TrainingPlan | None:
        """What this party trains in a session that its leak guard judges; None where nobody guards it."""
        planned = self._plan(contract, own)
        return None if planned is None else planned[0]

    def _plan(self, contract: Contract, own: Membership) -> tuple[TrainingPlan, dict[str, int]] | None:
        """What a guarded party trains in a session, and the widths of the models of which something leaves."""
        definition = protocol(contract.protocol)
        implementation = definition.load()
        plans, settings = implementation.training_plan, self.config.settings_of(definition)
        plan = plans(contract, own, settings) if self.config.privacy.guards and plans is not None else None
        if plan is None:
            return None
        if plan.is_balanced and isinstance(self.holdings.data, Splits):
            plan = replace(plan, classes=tuple(self.holdings.data.train.labels.unique(return_counts=True)[1].tolist()))
        # Not built for that: there may be no memory for what a peer names.
        own_models, sizes = self.config.own_models, self.sizes(contract)
        widths = {
            spec.name: widest(
                model_outline(spec, contract.task, own_models, size=sizes.get(name))
                or agreed_model(self.name, contract, name, own_models, self.weights_of(contract), size=sizes.get(name))
            )
            for name, spec in contract.models.items()
            if not plan.leaving or name in plan.leaving
        }
        return plan, widths

    def _verdicts(self, contract: Contract, task: Any, peers: Sequence[Membership], observe: Observer) -> Verdicts:
        """What is found of what is trained in a session; asked of every blob where the task is guarded."""
        guarded = getattr(task, "is_guarded", False)
        kinds = protocol(contract.protocol).load().judged if guarded else ()
        return Verdicts(self.store, contract.session, peers[0].party if peers else "", kinds, observe)

    def offline_record(self, session: str) -> OfflineRecord:
        """What is kept of a session between two bundles.

        Raises:
            StorageCorrupted: It cannot be read.
        """
        if self.folder is None:
            raise InvalidValue(f"{self.name} keeps nothing", expected="a state_dir", received="none")
        return OfflineRecord(self.folder / "offline" / session)

    def starting_blobs(self, session: str) -> SessionBlobs:
        """Where weights to begin with are that are sent for a session; they go with its other blobs."""
        return SessionBlobs(self.blobs.keeper(session, INITIAL), half_uploads=2)

    def _blobs(self, session: str, part: str = "") -> SessionBlobs:
        return SessionBlobs(
            self.blobs.keeper(session, part), self._guards.release, half_uploads=self.config.limits.half_uploads
        )

    def enter(self, session: str, lost: Callable[[], object]) -> None:
        """Begins to work on a session: until `leave` no other process does.

        Args:
            session: The session.
            lost: See `Leases.hold`.

        Raises:
            StateInUse: Another process works on it.
        """
        if self.leases is not None:
            self.leases.hold(session, lost)

    def leave(self, session: str) -> None:
        """Stops to work on a session."""
        if self.leases is not None:
            self.leases.drop(session)

    def rounds_finished(self, session: str) -> int:
        """Rounds that this party is done with, of an active session."""
        return sum(record.kind == "finished" for record in self.store.records(session))


def _changed(party: str, session: str, received: str) -> DataChanged:
    return DataChanged(
        f"the data of {party} are not those that session {session} was agreed on",
        expected="the same samples, labels and splits as when it began",
        received=received,
        action=f"bring them back, and it goes on; or end it with comity cancel {session}",
    )
