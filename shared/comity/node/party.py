"""A party on its own machine: its data, its secret, its ledger, and the task that it brings to a session."""

from __future__ import annotations

import secrets
from functools import cached_property
from pathlib import Path

from comity.contract import Contract, Membership, ModelSpec, TaskSpec, TrainingTerms
from comity.data import Splits, load_data
from comity.errors import MalformedMessage, ModelSignatureMismatch, TaskMismatch
from comity.models import build
from comity.node.config import PartyConfig
from comity.session.gate import EgressGate
from comity.session.ledger import Ledger
from comity.tensors import Layout
from comity.training import Classification, Secret, choose_device


class LocalParty:
    """A party and what it holds.

    Args:
        name: Name of the party.
        config: Its data and settings.
        secret: Source of its own randomness.
        ledger: Its ledger.
    """

    def __init__(self, name: str, config: PartyConfig, secret: bytes, ledger: Ledger) -> None:
        self.name = name
        self.config = config
        self.ledger = ledger
        self._secret = secret

    @cached_property
    def splits(self) -> Splits:
        """The party's samples, read once."""
        return load_data(self.config.data)

    def membership(self, role: str) -> Membership:
        """This party's part in a session."""
        return Membership(party=self.name, role=role, samples=len(self.splits.train))

    def task_spec(self, mean: tuple[float, ...], std: tuple[float, ...]) -> TaskSpec:
        """The task that this party's data are for."""
        train = self.splits.train
        return TaskSpec(input_shape=train.input_shape, classes=train.classes, mean=mean, std=std)

    def gate(self, contract: Contract, peer: str) -> EgressGate:
        """What leaves to a peer in a session."""
        return EgressGate(contract, self.config.policy, self.ledger, peer)

    def task(self, contract: Contract, splits: Splits | None = None) -> Classification:
        """This party's model and data, as a contract wants them.

        Args:
            contract: The contract.
            splits: Other data to use, for comparisons; None for the party's own.

        Raises:
            UnknownModel: The model's name is unknown here.
            ModelSignatureMismatch: The name builds other tensors here.
            TaskMismatch: The data here are for another task.
            MalformedMessage: The terms are not those of a protocol that trains.
        """
        spec, terms = contract.task, contract.terms
        if not isinstance(terms, TrainingTerms):
            raise MalformedMessage(
                "the terms are not for training", expected="batch sizes", received=type(terms).__name__
            )
        own = self.task_spec(spec.mean, spec.std)
        if own != spec:
            action = "use data with inputs of one shape and the same classes on both sides"
            raise TaskMismatch(
                f"{self.name}'s data are for another task",
                expected=_described(spec),
                received=_described(own),
                action=action,
            )
        spec_of_model = contract.model
        model = build(
            spec_of_model.name,
            input_shape=spec.input_shape,
            classes=spec.classes,
            options=spec_of_model.options,
            seed=contract.seed,
        )
        signature = Layout.of(model.state_dict()).signature
        if signature != contract.model.signature:
            raise ModelSignatureMismatch(
                f"{self.name} builds other tensors for {contract.model.name}",
                expected=contract.model.signature,
                received=signature,
                action="run the same version of comity, and of the model, on both sides",
            )
        return Classification(
            model,
            splits or self.splits,
            normalization=(spec.mean, spec.std),
            batch_size=terms.batch_size,
            evaluation_batch_size=terms.evaluation_batch_size,
            secret=Secret(self._secret, contract.session),
            device=choose_device(self.config.device),
        )


def signed_model(name: str, options: dict[str, bool | int | float | str], task: TaskSpec, seed: int) -> ModelSpec:
    """A model spec with the signature that the model has here.

    Raises:
        UnknownModel: The name is unknown here.
        InvalidValue: The options do not fit.
    """
    model = build(name, input_shape=task.input_shape, classes=task.classes, options=options, seed=seed)
    return ModelSpec(name=name, options=options, signature=Layout.of(model.state_dict()).signature)


def own_secret(config: PartyConfig, state_dir: Path) -> bytes:
    """The configured secret, or the one that is kept in `state_dir`, made at first use."""
    if config.secret is not None:
        return config.secret.get_secret_value().encode()
    path = state_dir / "secret"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()


def _described(task: TaskSpec) -> str:
    shape = "×".join(str(length) for length in task.input_shape)
    return f"{task.kind} of {shape} inputs into {task.classes} classes"
