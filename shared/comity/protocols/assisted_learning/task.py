"""What a party brings to assisted learning: a classifier and samples, a policy and games, or a model of its own beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from comity.contract import Contract, Membership, ModelSpec, Terms
from comity.environments import EnvironmentSet
from comity.errors import InvalidValue, MalformedMessage, TaskMismatch
from comity.privacy import require_private
from comity.privacy.limits import TrainingPlan
from comity.protocol.implementation import Data, PrivateTraining, Resources, TaskBuilder
from comity.protocols.assisted_learning.extensions import OwnModel, Settings
from comity.protocols.assisted_learning.schedule import Schedule
from comity.protocols.assisted_learning.terms import AssistedLearningTerms, PolicyGradientTerms
from comity.tasks import build_model, objective_of
from comity.tasks.objective import Imitable
from comity.training import (
    AssistedDistillation,
    Distillation,
    OptimizerSpec,
    PolicyGradient,
    Supervised,
    sampling_rate,
)
from comity.training.local import supervised

_ROUNDING = 1e-9
"""Share by which two parties' best returns may differ."""

MODEL = "model"
"""What the protocol calls the model that crosses."""


class AssistedTaskBuilder(TaskBuilder):
    """See `TaskBuilder`."""

    def complete(self, terms: Terms, data: Data) -> Terms:
        """See `TaskBuilder.complete`: the drafting party's environment says what the best return is."""
        agreed = _terms(terms)
        if not isinstance(data, EnvironmentSet):
            return agreed
        how = agreed.policy_gradient or PolicyGradientTerms()
        if how.best_return is None:
            how = how.model_copy(update={"best_return": data.environment.best_return(how.discount)})
        return agreed.model_copy(update={"policy_gradient": how})

    def samples(self, terms: Terms, data: Data) -> int:
        """See `TaskBuilder.samples`: training samples, or episodes in an evaluation."""
        if isinstance(data, EnvironmentSet):
            return len(data.parameters) * _episodes(_terms(terms)).evaluation_episodes
        if data is not None and _terms(terms).select_on == "validation":
            data.split("validation")
        return 0 if data is None else len(data.train)

    def models_beside(self, contract: Contract, party: str, settings: Any) -> Sequence[str]:
        """See `TaskBuilder.models_beside`: the party's own, where it has one."""
        del contract, party
        own = settings.own_model if isinstance(settings, Settings) else None
        return () if own is None else (own.name,)

    def build(self, contract: Contract, resources: Resources) -> Supervised | PolicyGradient | AssistedDistillation:
        """See `TaskBuilder.build`."""
        terms, own = _terms(contract.terms), _own_model(resources)
        if own is not None and (resources.data is None or isinstance(resources.data, EnvironmentSet)):
            raise InvalidValue(
                "own_model needs samples to learn from", expected="[data] with samples", received=contract.task.kind
            )
        if own is not None and not isinstance(objective_of(contract.task), Imitable):
            raise TaskMismatch(
                "own_model is not for such a task: one model teaches another by what it says of a sample",
                expected="classification, multilabel or regression",
                received=contract.task.kind,
                action="leave own_model out of [protocols.assisted-learning]",
            )
        if isinstance(resources.data, EnvironmentSet):
            return _policy_gradient(terms, resources, resources.data)
        shared = _supervised(resources.models[MODEL], contract, terms, resources)
        if own is None:
            return shared
        seed, spec = resources.secret.seed("own model"), ModelSpec(name=own.name, options=own.options)
        private = build_model(spec, contract.task, seed, resources.own_models)
        # What is trained of it leaves by way of the shared model alone, which is judged.
        stays = replace(resources, rules=None)
        return AssistedDistillation(_supervised(private, contract, terms, stays), shared, _distillation(own), spec)

    def try_out(self, contract: Contract, task: Supervised | PolicyGradient | AssistedDistillation) -> None:
        """See `TaskBuilder.try_out`."""
        task.try_out(_terms(contract.terms).optimizer_spec(1))


TASK = AssistedTaskBuilder()


def disk_space(contract: Contract, own: Membership, peer: Membership, task: Any) -> int:
    """Most models that a party keeps at a time, and two states of a leak guard, one of which takes the other's place."""
    schedule = Schedule(contract, own, [peer])
    held: int = schedule.blobs_held() * task.layout.size
    if task.is_guarded:
        # What is trained beside what was sent counts as a model.
        held += 2 * (task.layout.size + task.guard_space(schedule.iterations * schedule.terms.batch_size))
    return held


def private_training(contract: Contract, own: Membership, peers: Sequence[Membership]) -> PrivateTraining | None:
    """What of a party's training noise covers; None where it trains without noise."""
    schedule = Schedule(contract, own, peers)
    terms = schedule.terms
    if terms.privacy is None or own.samples == 0:
        return None
    return PrivateTraining(terms.privacy, sampling_rate(own.samples, terms.batch_size), schedule.steps())


def training_plan(contract: Contract, own: Membership, settings: Any) -> TrainingPlan | None:
    """What a party trains between two checkpoints; None for games, of which nothing is judged.

    Where it has a model of its own, what leaves is made by the distillations that the node's settings speak of.
    """
    terms = _terms(contract.terms)
    if own.samples == 0 or terms.policy_gradient is not None:
        return None
    teaches = settings.own_model if isinstance(settings, Settings) else None
    if teaches is not None:
        return TrainingPlan(
            terms.batch_size,
            teaches.to_shared,
            terms.iterations,
            teaches.optimizer,
            teaches.learning_rate,
            is_private=False,
            steps_term="to_shared",
        )
    return TrainingPlan(
        terms.batch_size,
        terms.sampling_period,
        terms.of_role(own.role) or terms.iterations,
        terms.optimizer,
        # Momentum adds up steps.
        terms.learning_rate / (1 - terms.momentum),
        terms.privacy is not None,
        is_balanced=terms.sampling == "balanced",
    )


def _terms(terms: Terms) -> AssistedLearningTerms:
    if not isinstance(terms, AssistedLearningTerms):
        raise MalformedMessage(
            "the terms are another protocol's", expected="assisted_learning", received=type(terms).__name__
        )
    return terms


def _own_model(resources: Resources) -> OwnModel | None:
    return resources.settings.own_model if isinstance(resources.settings, Settings) else None


def _distillation(own: OwnModel) -> Distillation:
    """How a model of one's own and the one that crosses learn from each other."""
    optimizer = OptimizerSpec(own.optimizer, own.learning_rate)
    continues = own.begins_with == "last"
    return Distillation(optimizer, own.temperature, own.alpha, own.to_shared, own.to_own_epochs, continues)


def _supervised(model: nn.Module, contract: Contract, terms: AssistedLearningTerms, resources: Resources) -> Supervised:
    if terms.policy_gradient is not None:
        raise MalformedMessage(
            "the terms are for policies",
            expected=f"no policy_gradient for {contract.task.kind}",
            received="policy_gradient",
            action="leave it out of session.terms",
        )
    if terms.privacy is not None:
        require_private(model)
    return supervised(
        model,
        None if isinstance(resources.data, EnvironmentSet) else resources.data,
        contract.task,
        terms,
        secret=resources.secret,
        device=resources.device,
        mechanism=resources.mechanism,
        rules=resources.rules,
        training=resources.training,
        sampling=terms.sampling,
        is_judged_on_validation=terms.select_on == "validation",
    )


def _policy_gradient(
    terms: AssistedLearningTerms, resources: Resources, environments: EnvironmentSet
) -> PolicyGradient:
    how = _episodes(terms)
    if terms.select_on == "validation" or terms.sampling == "balanced":
        raise InvalidValue(
            "games have neither classes nor samples that are held out",
            expected='session.terms with select_on = "training" and sampling = "uniform"',
            received=f"{terms.select_on} and {terms.sampling}",
            action="leave them out",
        )
    if terms.privacy is not None:
        raise InvalidValue(
            "Differential privacy covers samples",
            expected="no session.terms.privacy for games",
            received=terms.privacy.scope,
            action="leave it out",
        )
    own = environments.environment.best_return(how.discount)
    if how.best_return is None or how.best_return < own - abs(own) * _ROUNDING:
        raise TaskMismatch(
            f"an episode of {environments.environment.name} may return more than the contract's best",
            expected=f"policy_gradient.best_return of {own:g} or more",
            received=how.best_return,
            action="raise it",
        )
    return PolicyGradient(
        resources.models[MODEL],
        environments,
        discount=how.discount,
        baseline=how.baseline,
        batch_size=terms.batch_size,
        evaluation_episodes=how.evaluation_episodes,
        evaluation_batch_size=terms.evaluation_batch_size,
        best_return=how.best_return,
        secret=resources.secret,
    )


def _episodes(terms: AssistedLearningTerms) -> PolicyGradientTerms:
    if terms.policy_gradient is None:
        raise MalformedMessage(
            "the terms are not for policies",
            expected="session.terms.policy_gradient",
            received="none",
            action="name it in session.terms, in a protocol that trains policies",
        )
    return terms.policy_gradient
