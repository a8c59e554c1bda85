"""What of a protocol needs torch, grpc and protobuf: its messages, its roles, and the task that a party brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from comity.contract import ASPECTS, Aspect, Contract, Json, Membership, ModelSpec, TaskSpec, Terms
from comity.data import Splits
from comity.environments import EnvironmentSet
from comity.models import OwnModels
from comity.privacy import Mechanism
from comity.privacy.leak_guard import Rules
from comity.privacy.limits import TrainingPlan
from comity.privacy.terms import PrivacyTerms
from comity.protocol.absence import Absence
from comity.protocol.comparing import Comparing
from comity.protocol.roles import Initiator
from comity.session.contexts import PeerContext, SessionContext
from comity.session.worker import Steppable
from comity.tasks import ModelSize, no_weights, require_task
from comity.tasks.models import Weights
from comity.training import Secret
from comity.training.settings import TrainingSettings
from comity.transport.bindings.channel import Channel
from comity.transport.service import Service

Data = Splits | EnvironmentSet | None
"""A party's data, as its node loads them: samples, games, or none."""


@dataclass(frozen=True)
class Resources:
    """What a party brings to a session.

    Attributes:
        party: Its name.
        models: The contract's models, as this party builds them, with their initial weights; by what the protocol calls
            them.
        data: Its data.
        secret: Its randomness in the session.
        device: Where it computes: `auto`, `cpu`, `cuda` …
        own_models: What it calls models of its own, and where they are.
        settings: Its settings of the protocol; None where the protocol has none, or they are to be passed over.
        mechanism: The noise of its training; None for none.
        rules: By which a leak guard decides what of its training is sent; None for no guard.
        training: How it makes its steps.
        weights: Gives the weights that models begin with, for who builds one again.
    """

    party: str
    models: Mapping[str, nn.Module]
    data: Data
    secret: Secret
    device: str = "auto"
    own_models: OwnModels = field(default_factory=dict)
    settings: Any = None
    mechanism: Mechanism | None = None
    rules: Rules | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)
    weights: Weights = no_weights


class TaskBuilder(Protocol):
    """Makes what a party does in a session of a protocol: of its models, its data and the contract.

    A protocol derives its own from this one, and says what is otherwise with it.
    """

    def complete(self, terms: Terms, data: Data) -> Terms:
        """The terms of a draft in which nothing is left to one side; as they are, if a protocol says nothing else.

        Raises:
            InvalidValue: The drafting party's data do not say what is missing.
        """
        del data
        return terms

    def samples(self, terms: Terms, data: Data) -> int:
        """Samples, or episodes, behind what a party's updates and losses say; 0 for a party without data.

        Training samples, if a protocol says nothing else.

        Raises:
            MalformedMessage: The terms do not go with the data.
        """
        del terms
        return len(data.train) if isinstance(data, Splits) else 0

    def require_fitting(self, party: str, data: Data, task: TaskSpec, aspects: frozenset[Aspect] = ASPECTS) -> None:
        """Checks that a party's data go with a contract's task, before a model is built of the sizes that it names.

        Args:
            party: The party, for the error.
            data: Its data.
            task: The contract's task.
            aspects: What of it has to be the same, as the protocol's definition says of the party's role.

        Raises:
            TaskMismatch: They do not.
        """
        require_task(party, data, task, aspects)

    def sizes(
        self, terms: Terms, task: TaskSpec, models: Mapping[str, ModelSpec], own: OwnModels
    ) -> Mapping[str, ModelSize]:
        """What models take and give that are of other sizes than the task's, such as one that goes by another's features.

        None, if a protocol says nothing else. All parties find the same, without building a model of a peer's sizes.

        Args:
            terms: The contract's terms.
            task: What its models are for.
            models: Its models, by what the protocol calls them.
            own: What the node's own configuration calls models, and where they are.

        Raises:
            RefusedError: A model that decides another's size cannot be had here.
            InvalidValue: The terms do not go with it.
        """
        del terms, task, models, own
        return {}

    def models_beside(self, contract: Contract, party: str, settings: Any) -> Sequence[str]:
        """Names of models that a party's task builds beside the contract's; none, if a protocol says nothing else.

        They never leave. Like the contract's they are tried before the session, in a process of its own where others wrote
        them.

        Args:
            contract: The contract.
            party: The party.
            settings: Its settings of the protocol; None where the protocol has none.
        """
        del contract, party, settings
        return ()

    def absences(
        self, terms: Terms | None, rounds: int, data: Data, settings: Any, min_samples: int
    ) -> Sequence[Absence]:
        """Which rounds a party may sit out for lack of samples, for its operator; none, if a protocol says nothing else.

        Args:
            terms: A session's terms; None where no session is known yet.
            rounds: Its rounds.
            data: The party's data.
            settings: Its settings of the protocol; None where the protocol has none, or no session is known yet.
            min_samples: Fewest samples that its policy wants behind what leaves.
        """
        del terms, rounds, data, settings, min_samples
        return ()

    def build(self, contract: Contract, resources: Resources) -> Any:
        """A party's local task, of the class that the protocol's roles work with.

        Raises:
            TaskMismatch: The protocol is not for such a task.
            MalformedMessage: The terms are not those of the protocol, or do not go with the task.
            InvalidValue: The terms, or the settings, do not go with the model or the data.
        """

    def try_out(self, contract: Contract, task: Any) -> None:
        """Does once what a session does with a task many times: a step, an evaluation, a way over the wire.

        Nothing, if a protocol says nothing else. The task is afterwards as it was.

        Args:
            contract: The contract.
            task: What `build` gave for it.

        Raises:
            ComityError: It does not work; says what does not fit.
        """
        del contract, task


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """A party's training in a session that noise covers.

    Attributes:
        terms: Which noise.
        sampling_rate: The probability with which a step sees a sample, in (0, 1].
        steps: Local steps in the whole session.
    """

    terms: PrivacyTerms
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class Implementation:
    """What of a protocol needs torch, grpc and protobuf; a definition names it.

    Attributes:
        service: Its calls, from which everything between two parties is derived.
        task: Makes a party's local task.
        disk_space: Most bytes that a party keeps at a time, from the contract, both memberships and its local task; None
            where that is next to nothing.
        initiator: Builds the initiator, from its contexts opposite the acceptors and the ports to them, in the same order.
        acceptor: Builds the acceptor, from its session context and its contexts opposite those whom it helps so far.
        private_training: What of a party's training noise covers, from the contract, its membership and its peers'; None
            where it trains without noise.
        judged: Egress kinds of what a guarded task trains: such a blob leaves only with a verdict of the leak guard.
        training_plan: What a contract has a party train on samples, from its membership and its settings of the protocol; None where
            nothing is judged.
        merge: Makes one session's metrics of the acceptor's and, by party, the initiators'; for protocols that are joined.
        comparing: How a party that asks is compared with itself alone; None where it trains nothing.
    """

    service: Service
    task: TaskBuilder
    initiator: Callable[[Sequence[PeerContext], Sequence[Any]], Initiator]
    acceptor: Callable[[SessionContext, Sequence[PeerContext]], Steppable]
    disk_space: Callable[[Contract, Membership, Membership, Any], int] | None = None
    private_training: Callable[[Contract, Membership, Sequence[Membership]], PrivateTraining | None] | None = None
    judged: tuple[str, ...] = ()
    training_plan: Callable[[Contract, Membership, Any], TrainingPlan | None] | None = None
    merge: Callable[[Mapping[str, Any], Mapping[str, Mapping[str, Any]]], dict[str, Json]] | None = None
    comparing: Comparing | None = None

    def connected(self, contexts: Sequence[PeerContext], channels: Sequence[Channel]) -> Initiator:
        """The initiator, from its contexts opposite the acceptors and the channels to them, in the same order."""
        ports = [self.service.client(*each) for each in zip(contexts, channels, strict=True)]
        return self.initiator(contexts, ports)
