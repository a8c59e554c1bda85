"""A party on its own machine: its data, its secret, what it keeps, and its context in a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from torch import Tensor

from comity import interruption
from comity.blobs.blob_store import BlobFolders, BlobMemories, BlobStore
from comity.blobs.session_blobs import SessionBlobs
from comity.contract import ASPECTS, Contract, Membership
from comity.data import Splits
from comity.environments import EnvironmentSet
from comity.errors import ComityError, DataChanged, InvalidValue, SessionFailed, UnknownModel
from comity.ledger.receipts import Signer
from comity.node.config import PartyConfig
from comity.node.holdings import Holdings
from comity.node.sent_copies import SentCopies
from comity.node.sessions.budget import planned, spend
from comity.node.weights import StartingWeights
from comity.privacy import Mechanism
from comity.privacy.leak_guard import Rules, widest
from comity.privacy.limits import require_within
from comity.privacy.settings import Preset
from comity.protocol.implementation import Data, Resources
from comity.protocol.registry import protocol
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event, Observer
from comity.session.gate import EgressGate, Guards
from comity.session.outcome import Outcome
from comity.session.policy import NEVER_ASKED, Asked
from comity.session.presence import Presence
from comity.session.receipt_book import ReceiptBook, record_opening
from comity.session.verdicts import Verdicts
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.leases import Leases
from comity.store.secrets import Secrets
from comity.store.store import Store
from comity.tasks import agreed_model, model_bytes, model_outline, require_usable, whole_model
from comity.tensors import Blob, Layout
from comity.training import Secret
from comity.transport.bindings.offline import OfflineRecord

_COPIES = 8
"""How often a session has its models in memory: to train and to evaluate, as they began, gradients, two moments of an
optimiser, what is packed and what is sent."""

log = structlog.get_logger()


class LocalParty:
    """A party and what it holds.

    Args:
        name: Name of the party.
        config: Its data and settings.
        secrets: Where its own randomness and its key come from.
        store: Its ledger, sessions and journals.
        folder: Its `state_dir`; None for a party that keeps nothing.
        guards: How it looks after what leaves, beyond contract and policy.

    Attributes:
        holdings: Its data.
        services: What the services of its node give to roles, by name.
        blobs: Where the blobs of its sessions are.
        leases: Says who works on which session, where several processes may.
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
        self.name = name
        self.config = config
        self.store = store
        self.signer = Signer(secrets.receipt_key(), name)
        self.holdings = Holdings(name, config.own_data)
        self.services: Mapping[str, Any] = {}
        self.folder = folder
        self.blobs: BlobStore = BlobMemories() if folder is None else BlobFolders(folder / "blobs")
        self.leases: Leases | None = None
        self._secrets = secrets
        self._guards = guards or Guards()
        self._tried = ""
        self._starting = StartingWeights(name, config.weights, folder)
        self._copies = None if folder is None else SentCopies(folder)

    def weights(self, digest: str) -> Mapping[str, Tensor]:
        """The weights of a digest that models may begin with.

        Raises:
            UnknownWeights: This party does not have them.
        """
        return self._starting.find(digest)

    def whole(self, contract: Contract, outcome: Outcome) -> Blob | None:
        """All of the model that a session left, where a part of it crossed, with its adapters worked in; else None."""
        spec = next(iter(contract.models.values()), None)
        if spec is None or not spec.base or len(outcome.models) != 1 or len(contract.models) != 1:
            return None
        crossed = Layout.unpack(outcome.models[0])
        own = self.config.own_models
        tensors = whole_model(spec, contract.task, contract.seed, crossed, own, self.weights)
        return Layout.of(tensors).pack(tensors)

    def weights_named(self, name: str) -> str:
        """The digest of weights that a script names; see `StartingWeights.digest_of`."""
        return self._starting.digest_of(name)

    def protection(self, contract: Contract) -> Preset | None:
        """What protects this party's samples in a session; None where its role trains on none."""
        definition = protocol(contract.protocol)
        role = definition.acceptor if self.name in contract.acceptors else definition.initiator
        return self.config.privacy.preset if role in definition.trains else None

    def membership(self, role: str, contract: Contract | None = None) -> Membership:
        """This party's part in a session.

        Args:
            role: What it does in it.
            contract: What was agreed, whose protocol says how many samples that are; None for all that it has.

        Raises:
            RefusedError: The terms do not go with its data.
        """
        task = None if contract is None else protocol(contract.protocol).load().task
        data = self.holdings.data
        samples = self.holdings.count if task is None or contract is None else task.samples(contract.terms, data)
        return Membership(party=self.name, role=role, samples=samples, receipt_key=self.signer.public_key)

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
        self.require_same_data(contract.session)
        gates: list[EgressGate] = []

        def observed(event: Event) -> None:
            if event.kind == "round-finished":
                sent, received = (sum(gate.delivered(way) for gate in gates) for way in ("sent", "received"))
                event = replace(event, fields={**event.fields, "bytes_sent": sent, "bytes_received": received})
            observe(event)

        plan = planned(contract, own, peers) if peers else None
        task = self.task(contract, mechanism=None if plan is None else plan[0])
        entered = spend(self.store, self.config.policy, contract, own, peers[0], plan) if peers else None
        if entered is not None:
            observe(Event("privacy", 0, entered))
        journal = Journal(self.store, contract.session)
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

    def require_same_data(self, session: str, *, again: bool = False) -> None:
        """Checks that the data are those that a session was entered with, or notes that it is entered with them.

        Args:
            session: The session.
            again: Whether to read them anew.

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
        if known is None and found:
            journal.keep_data(found)
        elif known is not None and known != found:
            raise _changed(self.name, session, "others")

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
        return EgressGate(contract, self.config.policy, self.store, peer, guards)

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
        privacy, plans = self.config.privacy, implementation.training_plan
        settings = self.config.settings_of(definition)
        plan = plans(contract, own, settings) if privacy.guards and plans is not None else None
        if plan is None:
            return
        if plan.is_balanced and isinstance(self.holdings.data, Splits):
            plan = replace(plan, classes=tuple(self.holdings.data.train.labels.unique(return_counts=True)[1].tolist()))
        # Not built for that: there may be no memory for what a peer names.
        own_models, sizes = self.config.own_models, implementation.sizes(contract, self.config.own_models)
        widths = {
            spec.name: widest(
                model_outline(spec, contract.task, own_models, size=sizes.get(name))
                or agreed_model(self.name, contract, name, own_models, self.weights, size=sizes.get(name))
            )
            for name, spec in contract.models.items()
            if not plan.leaving or name in plan.leaving
        }
        require_within(privacy, plan, own.samples, widths, self.name)

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

    def memory_space(self, contract: Contract) -> int:
        """Memory that a session takes while it is active, in bytes, beside this party's data.

        Its models are not built for that: what they would take may be more than there is.

        Raises:
            TaskMismatch: The data here are for another task.
            UnknownModel: A model's name is unknown here.
        """
        require_usable(contract.task)
        self.require_fitting(contract, self.holdings.data)
        own_models = self.config.own_models
        with self._named_where_lacking():
            sizes = protocol(contract.protocol).load().sizes(contract, own_models)
            weights = sum(
                model_bytes(spec, contract.task, own_models, size=sizes.get(name))
                for name, spec in contract.models.items()
            )
        return weights * (_COPIES + self.config.limits.half_uploads)

    @contextmanager
    def _named_where_lacking(self) -> Iterator[None]:
        """Says who it is that lacks a model: the error may be read at another party."""
        try:
            yield
        except UnknownModel as error:
            raise UnknownModel(
                f"{self.name} lacks a model of the session: {error.what}",
                expected=error.expected,
                received=error.received,
                action=error.action,
            ) from error

    def require_fitting(self, contract: Contract, data: Data) -> None:
        """Checks that data go with a contract, as far as its protocol wants that of this party's role.

        Raises:
            TaskMismatch: They do not.
        """
        definition = protocol(contract.protocol)
        role = definition.acceptor if self.name in contract.acceptors else definition.initiator
        aspects = definition.agrees.get(role, ASPECTS)
        definition.load().task.require_fitting(self.name, data, contract.task, aspects)

    def task(
        self,
        contract: Contract,
        splits: Splits | None = None,
        *,
        environments: EnvironmentSet | None = None,
        mechanism: Mechanism | None = None,
    ) -> Any:
        """This party's model and data, or games, as a contract wants them; of the class that the protocol's roles take.

        Args:
            contract: The contract.
            splits: Other data to use, for comparisons; None for the party's own. Settings of the protocol are then passed
                over.
            environments: Other games to use, for comparisons; None for the party's own.
            mechanism: The noise of its training; None for none.

        Raises:
            UnknownModel: The model's name is unknown here.
            UnknownTask: The kind of task is unknown here.
            ModelSignatureMismatch: The name builds other tensors here.
            TaskMismatch: The data here are for another task, or the protocol is not for such data.
            MalformedMessage: The terms do not go with the task.
            InvalidValue: The terms do not go with the model or the data.
        """
        definition = protocol(contract.protocol)
        require_usable(contract.task)
        implementation, data = definition.load(), splits or environments or self.holdings.data
        self.require_fitting(contract, data)
        own_models, weights = self.config.own_models, self.weights
        with self._named_where_lacking():
            sizes = implementation.sizes(contract, own_models)
            models = {
                name: agreed_model(self.name, contract, name, own_models, weights, size=sizes.get(name))
                for name in contract.models
            }
        resources = Resources(
            self.name,
            models,
            data,
            Secret(self._secrets.own(), contract.session),
            self.config.device,
            self.config.own_models,
            self.config.settings_of(definition) if splits is None else None,
            mechanism,
            self._rules() if splits is None and environments is None else None,
        )
        return implementation.task.build(contract, resources)

    def tried_task(self, contract: Contract) -> Any:
        """This party's task, after it did once what a session does with it many times.

        Args:
            contract: The contract.

        Raises:
            ComityError: See `task`; or it does not work, and says what does not fit.
        """
        builder = protocol(contract.protocol).load().task
        try:
            task = self.task(contract, mechanism=self._some_noise(contract))
            if contract.hash != self._tried:
                with interruption.checked(_deadline(self.config.limits.unit_s)):
                    builder.try_out(contract, task)
        except ComityError:
            raise
        except Exception as error:
            said = str(error).strip().splitlines()
            received = f"{type(error).__name__}: {said[0][:300] if said else ''}"
            if self.name in contract.acceptors:
                # The party that asks is told: what others' code says may be of this party's samples, or its files.
                log.warning("model-not-tried", session=contract.session, exc_info=error)
                received = f"{type(error).__name__}; its operator finds the reason in its log"
            raise InvalidValue(
                f"{self.name} cannot train {', '.join(each.name for each in contract.models.values())} on its data",
                expected="a model that takes the data's inputs, and answers for its task",
                received=received,
                action="correct the model, or the terms that do not go with it",
            ) from error
        self._tried = contract.hash
        return task

    def _some_noise(self, contract: Contract) -> Mechanism | None:
        """Noise as a contract's training has it, but for how much; None for a training without.

        How much is reckoned where a session begins: it takes its time.
        """
        definition = protocol(contract.protocol)
        training = definition.load().private_training
        if training is None:
            return None
        helps = self.name in contract.acceptors
        role, other = definition.acceptor, definition.initiator
        own = self.membership(role if helps else other, contract)
        others = [contract.initiator or self.name] if helps else contract.acceptors
        # Of the others there is known what stands in the contract.
        peers = [own.model_copy(update={"party": each, "role": other if helps else role}) for each in others]
        found = training(contract, own, peers)
        return None if found is None else Mechanism(1.0, clipping_norm=found.terms.clipping_norm)

    def _rules(self) -> Rules | None:
        """By which the leak guard of this party decides; None for a party whose data are public."""
        privacy = self.config.privacy
        return Rules(fewest=privacy.min_distinct) if privacy.guards else None


def _changed(party: str, session: str, received: str) -> DataChanged:
    return DataChanged(
        f"the data of {party} are not those that session {session} was agreed on",
        expected="the same samples, labels and splits as when it began",
        received=received,
        action=f"bring them back, and it goes on; or end it with comity cancel {session}",
    )


def _deadline(seconds: float) -> Callable[[], None]:
    """A check that stops work that takes longer."""
    end = monotonic() + seconds

    def check() -> None:
        if monotonic() > end:
            raise SessionFailed(
                "the model takes too long",
                expected=f"one step and one evaluation within {seconds:g} s, by limits.unit_s",
                received="more",
                action="choose a smaller model or batch",
            )

    return check
