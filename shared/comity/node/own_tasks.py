"""What a party brings to a session: its models, and its task, as its contract has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from torch import Tensor

from comity import interruption
from comity.blobs.blob_store import BlobMemories, BlobStore, of_node
from comity.contract import ASPECTS, INITIAL, Contract, Membership, canonical
from comity.data import Splits
from comity.environments import EnvironmentSet
from comity.errors import ComityError, InvalidValue, SessionFailed, UnknownModel, UnknownWeights
from comity.ledger.receipts import Signer
from comity.node.config import PartyConfig
from comity.node.holdings import Holdings
from comity.node.trials.apart import Trials, what_is_tried
from comity.node.weights import StartingWeights, WeightsRef
from comity.privacy import Mechanism
from comity.privacy.leak_guard import Rules
from comity.protocol.implementation import Data, Resources
from comity.protocol.registry import protocol
from comity.store.secrets import Secrets
from comity.store.store import Store
from comity.tasks import ModelSize, agreed_model, model_bytes, require_usable, signed_model, whole_model
from comity.tasks.models import Weights
from comity.tensors import Blob, Layout
from comity.training import Secret

_SIZED = 16
"""Contracts of which the sizes of models are remembered."""

_TRIED = 64
"""How many of what was tried well are remembered."""

_COPIES = 8
"""How often a session has its models in memory: to train and to evaluate, as they began, gradients, two moments of an
optimiser, what is packed and what is sent."""

log = structlog.get_logger()


class OwnTasks:
    """A party's data and models, and what they come to in a session.

    Args:
        name: Name of the party.
        config: Its data and settings.
        secrets: Where its own randomness and its key come from.
        store: Where its sessions are recorded.
        folder: Its `state_dir`; None for a party that keeps nothing.

    Attributes:
        holdings: Its data.
        signer: Its key.
        blobs: Where the blobs of its sessions are.
        trials: Tries contracts with models of others' code in a process of its own; None for a party that tries all of them
            in this one.
    """

    def __init__(self, name: str, config: PartyConfig, secrets: Secrets, store: Store, folder: Path | None) -> None:
        self.name = name
        self.config = config
        self.folder = folder
        self.holdings = Holdings(name, config.own_data)
        self.signer = Signer(secrets.receipt_key(), name)
        self.blobs: BlobStore = BlobMemories() if folder is None else of_node(folder, store.small_blobs)
        self._secrets = secrets
        self.trials: Trials | None = None
        self._tried: deque[str] = deque(maxlen=_TRIED)
        self._starting = StartingWeights(name, config.weights, folder)
        self._sized = config, dict[bytes, Mapping[str, ModelSize]]()

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

    def sizes(self, contract: Contract) -> Mapping[str, ModelSize]:
        """See `TaskBuilder.sizes`; asked once for the same models, since a protocol may have to build one for it."""
        config, known = self._sized
        if config is not self.config:
            # Read again since: a model's name may stand for another.
            known = {}
        # A draft's models are signed later.
        unsigned = {name: each.model_dump(mode="json", exclude={"signature"}) for name, each in contract.models.items()}
        terms, task = contract.terms.model_dump(mode="json"), contract.task.model_dump(mode="json")
        agreed = canonical([contract.protocol, terms, task, unsigned])
        if agreed not in known:
            builder = protocol(contract.protocol).load().task
            found = builder.sizes(contract.terms, contract.task, contract.models, self.config.own_models)
            latest = list(known.items())[1 - _SIZED :]
            known = {**dict(latest), agreed: found}
        self._sized = self.config, known
        return known[agreed]

    def weights_of(self, contract: Contract) -> Weights:
        """Finds the weights that the models of a session may begin with: this party's own, and what it was sent for it."""

        def find(digest: str) -> Mapping[str, Tensor]:
            sent = self.sent_weights(contract, digest)
            return self._starting.find(digest) if sent is None else Layout.unpack(sent)

        return find

    def sent_weights(self, contract: Contract, digest: str) -> Blob | None:
        """Weights of a digest that were sent to this party for a session; None for none. No other session sees them."""
        if digest not in contract.weights_sent:
            return None
        return self.blobs.find(contract.session, bytes.fromhex(digest), INITIAL)

    def starting_bytes(self, contract: Contract) -> int:
        """What the weights that were sent to this party for a session take, in bytes."""
        sent = (self.sent_weights(contract, each) for each in contract.weights_sent)
        return sum(each.size for each in sent if each is not None)

    def missing_weights(self, contract: Contract) -> Mapping[str, int]:
        """What of the weights that may be sent this party lacks: their lengths by digest."""
        missing = dict[str, int]()
        for digest, size in contract.weights_sent.items():
            try:
                self.weights_of(contract)(digest)
            except UnknownWeights:
                missing[digest] = size
        return missing

    def weights_blob(self, contract: Contract, digest: str) -> Blob:
        """The weights of a digest, as they are sent.

        Raises:
            UnknownWeights: This party does not have them.
        """
        weights = self.weights_of(contract)(digest)
        return Layout.of(weights).pack(weights)

    def weights_named(self, name: str) -> WeightsRef:
        """Weights that a script names; see `StartingWeights.named`."""
        return self._starting.named(name)

    def whole(self, contract: Contract, name: str, crossed: Blob) -> Blob | None:
        """All of a model of which a part crossed, with its adapters worked in; None where all of it did.

        Args:
            contract: The contract.
            name: What the protocol calls the model.
            crossed: What crossed of it, as a session left it.
        """
        spec, own = contract.models[name], self.config.own_models
        if not spec.base:
            return None
        size = self.sizes(contract).get(name)
        state = Layout.unpack(crossed)
        tensors = whole_model(spec, contract.task, contract.seed, state, own, self.weights_of(contract), size=size)
        return Layout.of(tensors).pack(tensors)

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
            sizes = self.sizes(contract)
            weights = sum(
                model_bytes(spec, contract.task, own_models, size=sizes.get(name))
                for name, spec in contract.models.items()
            )
        # Weights that come are in memory whole, and once more where they are looked at.
        sent = sum(contract.weights_sent.values())
        return weights * (_COPIES + self.config.limits.half_uploads) + 2 * sent

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
        own_models, weights = self.config.own_models, self.weights_of(contract)
        with self._named_where_lacking():
            sizes = self.sizes(contract)
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
            self.config.training,
            weights,
        )
        return implementation.task.build(contract, resources)

    def signed(self, contract: Contract) -> Contract:
        """A draft whose models have the signatures that they have here, where they have none.

        Raises:
            RefusedError: A model cannot be had here.
            InvalidValue: It cannot be built so.
        """
        own_models, models, begin = self.config.own_models, contract.models, self.weights_of(contract)
        if all(each.signature for each in models.values()):
            return contract
        sizes = self.sizes(contract)
        signed = {
            name: signed_model(each, contract.task, contract.seed, own_models, begin, size=sizes.get(name))
            for name, each in models.items()
        }
        return contract.model_copy(update={"models": signed})

    def try_apart(self, contract: Contract) -> bool:
        """Has a contract tried in a process of its own, where its models are of others' code; see `Trials.require`.

        Returns:
            Whether it was tried.

        Raises:
            ComityError: They cannot be built, or trained on this party's data.
        """
        models = self._models_of(contract)
        if self.trials is None or not self.trials.concern(models):
            return False
        self.trials.require(contract, models, self.holdings.digest)
        return True

    def is_tried(self, contract: Contract) -> bool:
        """Whether `tried_task` has nothing to try: it did so, in this process, with such models, task and terms."""
        return self._what_is_tried(contract) in self._tried

    def _what_is_tried(self, contract: Contract) -> str:
        return what_is_tried(self.name, self.config, contract, self._models_of(contract), self.holdings.digest)

    def models_beside(self, contract: Contract) -> Sequence[str]:
        """Names of the models that this party builds for a contract beside those that it names; they never leave."""
        definition = protocol(contract.protocol)
        return definition.load().task.models_beside(contract, self.name, self.config.settings_of(definition))

    def _models_of(self, contract: Contract) -> tuple[str, ...]:
        return (*(each.name for each in contract.models.values()), *self.models_beside(contract))

    def tried_task(self, contract: Contract) -> Any:
        """This party's task, after it did once what a session does with it many times.

        Args:
            contract: The contract.

        Raises:
            ComityError: See `task`; or it does not work, and says what does not fit.
        """
        builder = protocol(contract.protocol).load().task
        apart = self.try_apart(contract)
        try:
            task = self.task(contract, mechanism=self._some_noise(contract))
            tried = self._what_is_tried(contract)
            if not apart and tried not in self._tried:
                with interruption.checked(_deadline(self.config.limits.trial_s)):
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
        if tried not in self._tried:
            self._tried.append(tried)
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


def _deadline(seconds: float) -> Callable[[], None]:
    """A check that stops work that takes longer."""
    end = monotonic() + seconds

    def check() -> None:
        if monotonic() > end:
            raise SessionFailed(
                "the model takes too long",
                expected=f"one step and one evaluation within {seconds:g} s, by limits.trial_s",
                received="more",
                action="choose a smaller model or batch",
            )

    return check
