"""What a party brings to gradient rewards: a classifier, and samples to train or to test it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comity.contract import Contract, Membership, Terms
from comity.environments import EnvironmentSet
from comity.errors import MalformedMessage, TaskMismatch
from comity.privacy import require_private
from comity.privacy.limits import TrainingPlan
from comity.protocol.implementation import Data, PrivateTraining, Resources, TaskBuilder
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.training import Supervised, sampling_rate
from comity.training.local import supervised

MODEL = "model"
"""What the protocol calls the model that is trained."""


class RewardedTaskBuilder(TaskBuilder):
    """See `TaskBuilder`."""

    def samples(self, terms: Terms, data: Data) -> int:
        """See `TaskBuilder.samples`."""
        if isinstance(data, EnvironmentSet):
            raise _no_samples(data)
        return super().samples(terms, data)

    def build(self, contract: Contract, resources: Resources) -> Supervised:
        """See `TaskBuilder.build`."""
        if not isinstance(contract.terms, GradientRewardsTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="gradient_rewards", received=contract.protocol
            )
        if isinstance(resources.data, EnvironmentSet):
            raise _no_samples(resources.data)
        if contract.terms.privacy is not None:
            require_private(resources.models[MODEL])
        return supervised(
            resources.models[MODEL],
            resources.data,
            contract.task,
            contract.terms,
            secret=resources.secret,
            device=resources.device,
            mechanism=resources.mechanism,
            rules=resources.rules,
            training=resources.training,
        )

    def try_out(self, contract: Contract, task: Supervised) -> None:
        """See `TaskBuilder.try_out`."""
        if isinstance(contract.terms, GradientRewardsTerms):
            task.try_out(contract.terms.optimizer_spec(1))


TASK = RewardedTaskBuilder()


def disk_space(contract: Contract, own: Membership, peer: Membership, task: Supervised) -> int:  # noqa: ARG001
    """Most that a party keeps at a time.

    At a client, two models, an update and a reward, and two states of a leak guard, one of which takes the other's place; at
    the server, an update and a reward of each client.
    """
    terms = contract.terms
    if not isinstance(terms, GradientRewardsTerms):
        raise MalformedMessage(
            "the terms are another protocol's", expected="gradient_rewards", received=contract.protocol
        )
    if own.role == "server":
        return (2 + 2 * terms.clients) * task.layout.size
    kept = 2 * (task.layout.size + task.guard_space(task.samples * terms.epochs)) if task.is_guarded else 0
    return 4 * task.layout.size + kept


def training_plan(contract: Contract, own: Membership, settings: Any) -> TrainingPlan | None:  # noqa: ARG001
    """What a client trains between two updates; None for the server, which trains nothing."""
    steps = _steps(contract, own)
    if steps is None:
        return None
    terms: Any = contract.terms
    return TrainingPlan(
        terms.batch_size,
        steps,
        steps,
        terms.optimizer,
        terms.learning_rate,
        is_private=terms.privacy is not None,
        steps_term="epochs",
    )


def private_training(contract: Contract, own: Membership, peers: Sequence[Membership]) -> PrivateTraining | None:  # noqa: ARG001
    """What of a client's training noise covers: all steps of all rounds, also of those that it may miss."""
    steps, terms = _steps(contract, own), contract.terms
    if steps is None or not isinstance(terms, GradientRewardsTerms) or terms.privacy is None:
        return None
    return PrivateTraining(terms.privacy, sampling_rate(own.samples, terms.batch_size), steps * contract.rounds)


def _steps(contract: Contract, own: Membership) -> int | None:
    """Steps of a client in a round; None for who trains nothing."""
    terms = contract.terms
    if not isinstance(terms, GradientRewardsTerms) or own.role == "server" or not own.samples:
        return None
    return terms.epochs * -(-own.samples // terms.batch_size)


def _no_samples(environments: EnvironmentSet) -> TaskMismatch:
    return TaskMismatch(
        "gradient rewards are for samples",
        expected="[data] with samples",
        received=environments.environment.name,
        action="use samples, or a protocol that trains policies",
    )
