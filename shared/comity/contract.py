"""What a session agrees to.

A contract is made by the party that asks, checked by the party that helps, and hashed by both; every later call quotes
the hash. It names the model and describes its tensors, but holds no code and no address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from blake3 import blake3
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

Option = bool | int | float | str

Json = None | bool | int | float | str | list["Json"] | Mapping[str, "Json"]
"""What JSON can say."""

EgressKind = Literal["contract", "checkpoint", "loss", "update", "reward", "features", "answer", "sample"]
"""What can leave a node. `contract` is the negotiation itself, which tells a peer this party's number of samples."""

IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names of parties and sessions: safe in a path, in metadata and in a certificate."""

Identifier = Annotated[str, Field(pattern=IDENTIFIER)]


_EXACT = 2**53
"""Whole numbers up to here are exact in a double."""


def _integral(options: dict[str, Option]) -> dict[str, Option]:
    # The wire's Struct knows one kind of number, a double; 64 and 64.0 must hash alike.
    for name, value in options.items():
        if isinstance(value, int) and abs(value) > _EXACT:
            raise ValueError(f"{name} is no number that the wire can carry, at most 2**53")
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in options.items()}


class Agreed(BaseModel):
    """A part of a contract: immutable, and without keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Terms(Agreed):
    """The part of a contract that belongs to one protocol; each slice derives its own."""

    @property
    def initiators(self) -> int | None:
        """How many join the session before it begins; None where one party asks alone."""
        return None

    @property
    def min_participants(self) -> int | None:
        """Fewest among whose contributions one is hidden; None where one party asks alone."""
        return None


class TrainingTerms(Terms):
    """Terms of protocols in which parties train on batches of their own samples.

    Attributes:
        batch_size: Samples in a training step.
        evaluation_batch_size: Samples in a block of an evaluation; agreed on since it decides the rounding.
    """

    batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 256
    evaluation_batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 256


class PolicyGradientTerms(Agreed):
    """How policies are trained and compared.

    Attributes:
        discount: γ of the return.
        baseline: What is taken off a return in training: nothing, as the paper writes it; the mean of the batch's other
            returns; or the mean of the batch, the rest divided by its standard deviation.
        evaluation_episodes: Episodes of each of a party's games in an evaluation; always the same.
        best_return: A discounted return that no episode exceeds, at or above 0; an episode's loss is what its own lacks of
            it. A script may leave it out: then it is what the asking party's environment says.
    """

    discount: Annotated[float, Field(gt=0, le=1)] = 0.99
    baseline: Literal["none", "mean", "normalized"] = "mean"
    evaluation_episodes: Annotated[int, Field(ge=1, le=2**17)] = 20
    best_return: float | None = None


class PrivacyTerms(Agreed):
    """Which noise covers the samples that a party trains on; `comity.privacy` says what it is worth.

    Attributes:
        scope: Whether ε and δ are those of every step, as the paper has them, or of the whole session.
        epsilon: ε; the paper has 1, 5 and 10 for a step.
        delta: δ.
        clipping_norm: Greatest Euclidean norm of a sample's gradient.
    """

    scope: Literal["per_step", "total"]
    epsilon: Annotated[float, Field(gt=0, le=100)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    clipping_norm: Annotated[float, Field(gt=0, le=1e30)] = 1.0


class AssistedTrainingTerms(TrainingTerms):
    """Terms of protocols in which parties may also train policies, or privately.

    Attributes:
        policy_gradient: How policies are trained; for tasks of kind `reinforcement`, and no others. `batch_size` is then
            the episodes of an update, and `evaluation_batch_size` those that are played at once.
        privacy: The noise; None for none.
    """

    policy_gradient: PolicyGradientTerms | None = None
    privacy: PrivacyTerms | None = None


class ModelSpec(Agreed):
    """A model by name.

    Attributes:
        name: Name of a model factory that every party has.
        options: Options of the factory.
        signature: BLAKE3 (hexadecimal) of the safetensors header of its state dict.
    """

    name: str
    options: Annotated[dict[str, Option], AfterValidator(_integral)] = {}
    signature: str = ""


class TaskSpec(Agreed):
    """What the model is for.

    Attributes:
        kind: The kind of task.
        environment: What is played in a task of kind `reinforcement`, for example `CartPole-v1`; empty for others.
        input_shape: Shape of one input, channels first, or of one observation.
        classes: Number of classes, or of actions, at least 2.
        mean: Per-channel mean that is taken off every input, in model range; empty for none.
        std: Per-channel standard deviation that every input is divided by; empty for none.
    """

    kind: Literal["classification", "reinforcement"] = "classification"
    environment: Annotated[str, Field(max_length=200)] = ""
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] = ()
    classes: Annotated[int, Field(ge=2)]
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, Field(gt=0)], ...] = ()

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> Self:
        channels = self.input_shape[0] if self.input_shape else 0
        if len(self.mean) != len(self.std) or len(self.mean) not in {0, channels}:
            raise ValueError(f"mean and std need one value each for the {channels} channels, or none")
        return self

    @model_validator(mode="after")
    def _games_for_policies_alone(self) -> Self:
        plays = self.kind == "reinforcement"
        if plays != bool(self.environment) or (plays and self.mean):
            raise ValueError("a task of kind reinforcement, and no other, has an environment; it has no mean and std")
        return self


class Membership(Agreed):
    """A party's part in a session.

    Attributes:
        party: Name of the party, as in its certificate.
        role: What it does in the session, for example `learner`.
        samples: Training samples, or episodes of an evaluation, behind its updates and losses; 0 for a party that does
            not train.
        receipt_key: Ed25519 public key of its statements, 64 hexadecimal digits.
    """

    party: Identifier
    role: str
    samples: Annotated[int, Field(ge=0)]
    receipt_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Contract(Agreed):
    """What a session agrees to.

    Attributes:
        protocol: Registered name of the protocol.
        version: Version of the protocol.
        session: Identifier of the session, chosen by the party that asks.
        seed: Seed of everything public that all parties must agree on, such as the initial weights.
        rounds: Rounds bought.
        model: The model that crosses.
        task: What the model is for.
        initiator: Party that asks for help; empty where an acceptor opened the session to many, who join it.
        acceptors: Parties that help.
        egress: Kinds that may cross, in either direction.
        terms: The protocol's own terms.
    """

    protocol: str
    version: Annotated[int, Field(ge=1)]
    session: Identifier
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    model: ModelSpec
    task: TaskSpec
    initiator: Identifier | Literal[""]
    acceptors: tuple[Identifier, ...]
    egress: tuple[EgressKind, ...]
    terms: SerializeAsAny[Terms]

    @property
    def is_open(self) -> bool:
        """Whether many may join it, each asking for itself."""
        return not self.initiator

    @property
    def hash(self) -> str:
        """BLAKE3 (hexadecimal) of the contract's canonical form: JSON, keys sorted, no spaces."""
        return blake3(canonical(self.model_dump(mode="json"))).hexdigest()


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def canonical(value: object) -> bytes:
    """Encodes a JSON value in the one form that is hashed: sorted keys, no spaces, shortest floats, UTF-8."""
    return _ENCODER.encode(value).encode()
