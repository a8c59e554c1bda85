"""A party's task in a session: its model with its data, or with its games, as a contract wants them."""

from __future__ import annotations

from torch import nn

from comity.contract import (
    AssistedTrainingTerms,
    Contract,
    ModelSpec,
    PolicyGradientTerms,
    TaskSpec,
    Terms,
    TrainingTerms,
)
from comity.data import Splits, no_samples
from comity.environments import EnvironmentSet
from comity.errors import InvalidValue, MalformedMessage, ModelSignatureMismatch, TaskMismatch
from comity.models import build
from comity.privacy import Mechanism, require_private
from comity.tensors import Layout
from comity.training import Classification, PolicyGradient, Secret, choose_device

_ROUNDING = 1e-9
"""Share by which two parties' best returns may differ."""


def signed_model(name: str, options: dict[str, bool | int | float | str], task: TaskSpec, seed: int) -> ModelSpec:
    """A model spec with the signature that the model has here.

    Raises:
        UnknownModel: The name is unknown here.
        InvalidValue: The options do not fit.
    """
    model = build(name, input_shape=task.input_shape, classes=task.classes, options=options, seed=seed)
    return ModelSpec(name=name, options=options, signature=Layout.of(model.state_dict()).signature)


def require_same_task(party: str, own: TaskSpec, wanted: TaskSpec) -> None:
    """Checks that a party's data, or games, are for the contract's task.

    Raises:
        TaskMismatch: They are for another.
    """
    if own != wanted:
        action = "use data with inputs of one shape and the same classes on both sides"
        if "reinforcement" in {own.kind, wanted.kind}:
            action = "use one environment on both sides"
        raise TaskMismatch(
            f"{party}'s data are for another task",
            expected=described(wanted),
            received=described(own),
            action=action,
        )


def agreed_model(party: str, contract: Contract) -> nn.Module:
    """The contract's model, with its initial weights.

    Raises:
        UnknownModel: Its name is unknown here.
        ModelSignatureMismatch: The name builds other tensors here.
        InvalidValue: Its options do not fit.
    """
    wanted, task = contract.model, contract.task
    model = build(
        wanted.name, input_shape=task.input_shape, classes=task.classes, options=wanted.options, seed=contract.seed
    )
    signature = Layout.of(model.state_dict()).signature
    if signature != wanted.signature:
        raise ModelSignatureMismatch(
            f"{party} builds other tensors for {wanted.name}",
            expected=wanted.signature,
            received=signature,
            action="run the same version of comity, and of the model, on both sides",
        )
    return model


def classification(
    model: nn.Module,
    splits: Splits | None,
    contract: Contract,
    secret: Secret,
    device: str,
    mechanism: Mechanism | None,
) -> Classification:
    """A task of samples.

    Args:
        model: The contract's model.
        splits: The party's samples; None for a party without.
        contract: The contract.
        secret: The party's randomness in the session.
        device: Where to compute.
        mechanism: The noise of the training; None for none.

    Raises:
        MalformedMessage: The terms are not those of a protocol that trains on samples.
        InvalidValue: The terms do not go with the model.
    """
    spec, terms = contract.task, _training(contract.terms)
    if isinstance(terms, AssistedTrainingTerms) and terms.policy_gradient is not None:
        raise MalformedMessage(
            "the terms are for policies",
            expected=f"no policy_gradient for {spec.kind}",
            received="policy_gradient",
            action="leave it out of session.terms",
        )
    if isinstance(terms, AssistedTrainingTerms) and terms.privacy is not None:
        require_private(model)
    return Classification(
        model,
        splits or no_samples(spec.input_shape, spec.classes),
        normalization=(spec.mean, spec.std),
        batch_size=terms.batch_size,
        evaluation_batch_size=terms.evaluation_batch_size,
        secret=secret,
        device=choose_device(device),
        privacy=mechanism,
    )


def policy_gradient(
    model: nn.Module, environments: EnvironmentSet, contract: Contract, secret: Secret
) -> PolicyGradient:
    """A task of games.

    Args:
        model: The contract's policy.
        environments: The party's games.
        contract: The contract.
        secret: The party's randomness in the session.

    Raises:
        MalformedMessage: The terms are not for policies.
        TaskMismatch: The policy does not fit the games' spaces, or their returns the contract's.
        InvalidValue: A term is out of its range.
    """
    terms = _training(contract.terms)
    how = episodes_of(terms)
    if isinstance(terms, AssistedTrainingTerms) and terms.privacy is not None:
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
        model,
        environments,
        discount=how.discount,
        baseline=how.baseline,
        batch_size=terms.batch_size,
        evaluation_episodes=how.evaluation_episodes,
        evaluation_batch_size=terms.evaluation_batch_size,
        best_return=how.best_return,
        secret=secret,
    )


def completed(terms: Terms, environments: EnvironmentSet | None) -> Terms:
    """Terms in which nothing is left to one side: the asking party's environment says what the best return is."""
    if environments is None or not isinstance(terms, AssistedTrainingTerms):
        return terms
    how = terms.policy_gradient or PolicyGradientTerms()
    if how.best_return is None:
        how = how.model_copy(update={"best_return": environments.environment.best_return(how.discount)})
    return terms.model_copy(update={"policy_gradient": how})


def episodes_of(terms: Terms | None) -> PolicyGradientTerms:
    """How policies are trained.

    Raises:
        MalformedMessage: The terms are not for policies.
    """
    how = terms.policy_gradient if isinstance(terms, AssistedTrainingTerms) else None
    if how is None:
        raise MalformedMessage(
            "the terms are not for policies",
            expected="session.terms.policy_gradient",
            received="none",
            action="name it in session.terms, in a protocol that trains policies",
        )
    return how


def described(task: TaskSpec) -> str:
    """A task in words."""
    shape = "×".join(str(length) for length in task.input_shape)
    if task.kind == "reinforcement":
        return f"{task.environment}: observations of {shape} numbers, {task.classes} actions"
    return f"{task.kind} of {shape} inputs into {task.classes} classes"


def _training(terms: Terms) -> TrainingTerms:
    if not isinstance(terms, TrainingTerms):
        raise MalformedMessage("the terms are not for training", expected="batch sizes", received=type(terms).__name__)
    return terms
