"""What a session agrees to.

A contract is made by the party that asks, checked by the party that helps, and hashed by both; every later call quotes
the hash. It names models and describes their tensors and what they are for, but holds no code and no address.

Everything in it may come from a peer, so every text and every list has a greatest length.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from blake3 import blake3
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

Option = bool | int | float | str

Json = None | bool | int | float | str | list["Json"] | Mapping[str, "Json"]
"""What JSON can say."""

KIND = r"^[a-z][a-z0-9_-]{0,31}$"
"""What kinds of things are called: of what leaves, of tasks, of models within a protocol."""

Kind = Annotated[str, Field(pattern=KIND)]

EgressKind = Kind
"""What leaves a node: `contract`, `checkpoint`, `loss`, `update`, `reward`, `features`, `answer`, `sample`, and what
installed packages add. `contract` is the negotiation itself, which tells a peer this party's number of samples."""

INITIAL: EgressKind = "initial"
"""Weights that a model begins with, from a party that has them to one that has not: of every protocol, and only where the
policy of the party that drafts the contract names it."""

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


Duration = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A time span in seconds."""

WEEK_S = 604_800.0

_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of the text around it."""


def _is_odd(character: str) -> bool:
    return character not in "\t\n" and unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}


def _shown(text: str) -> str:
    # It is shown to operators, whose terminals take control characters for commands; joiners belong to some scripts.
    # Headings of tables have tabs and ends of lines.
    odd = next((each for each in text if each in _TURNS or _is_odd(each)), None)
    if odd is not None:
        raise ValueError(f"{text!a} has a character that cannot be shown, {odd!a}")
    return text


Shown = AfterValidator(_shown)
"""Of a text: nothing in it drives a terminal, or has others read in another order."""

Text = Annotated[str, Field(max_length=200), Shown]
"""A name or a unit."""

Names = Annotated[tuple[Text, ...], Field(max_length=2**16)]
"""Names of classes or features, in order."""

Options = Annotated[
    dict[Text, bool | int | float | Annotated[str, Field(max_length=1000), Shown]],
    Field(max_length=64),
    AfterValidator(_integral),
]
"""Options of a factory or of a kind of task."""


class Agreed(BaseModel):
    """A part of a contract: immutable, and without keys that are not read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Terms(Agreed):
    """The part of a contract that belongs to one protocol; each slice derives its own."""

    @property
    def participants(self) -> int | None:
        """How many join the session before it begins; None where one party asks alone."""
        return None

    @property
    def min_participants(self) -> int | None:
        """Fewest among whose contributions one is hidden; None where one party asks alone."""
        return None

    def most_losses(self, rounds: int, acceptors: int) -> int:
        """Most exact losses on its samples that a session asks one party for; each answers a question to its data.

        Args:
            rounds: Rounds of the session.
            acceptors: How many help in it.
        """
        del rounds, acceptors
        return 0

    @property
    def without(self) -> frozenset[str]:
        """Models, and kinds that leave, that the protocol names and that sessions with these terms do without."""
        return frozenset()


Patterns = Annotated[tuple[Text, ...], Field(max_length=256)]
"""Names of layers or tensors, or patterns of them, such as `head.*`."""

Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""BLAKE3, hexadecimal; empty for none."""


class LoraSpec(Agreed):
    """Low-rank adapters (LoRA, Hu et al. 2021), which are trained in the place of the layers that they stand beside.

    Attributes:
        rank: r, the adapters' rank.
        alpha: α: what they add is multiplied with α / r.
        dropout: Share of their inputs that training drops.
        layers: Names or patterns of layers that have adapters; empty for every fully connected and convolutional one that is
            not trained itself.
    """

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layers: Patterns = ()


class ModelForm(Agreed):
    """What of a model is trained, how it begins, and what of its answer is meant.

    Attributes:
        answer: Which part of what the model gives is its answer: a key, an attribute or a position; empty for all of it.
        until: Name of a layer before which the model ends: it gives what would go into it; empty for the whole model.
        trainable: Names or patterns of the parameters that are trained, which alone cross; empty for all that the factory
            leaves trainable, or, with adapters, for these alone.
        lora: Adapters; None for none.
        fresh: Names or patterns of tensors that begin as the seed decides, whatever the weights to begin with have of them.
    """

    answer: Text = ""
    until: Text = ""
    trainable: Patterns = ()
    lora: LoraSpec | None = None
    fresh: Patterns = ()


class ModelSpec(ModelForm):
    """A model by name.

    Attributes:
        name: Name under which every party has the model; what builds it, each party's own installation and `[models]` say.
        options: Options of the factory.
        signature: BLAKE3 (hexadecimal) of the safetensors header of what crosses of its state dict.
        initial: Digest of the weights that it begins with; empty for those that the seed decides.
        initial_bytes: Length of their blob; 0 where there are none.
        base: Digest of what of it stays, the same at all parties; empty where all of it crosses.
    """

    name: Text
    options: Options = {}
    signature: Text = ""
    initial: Digest = ""
    initial_bytes: Annotated[int, Field(ge=0, le=_EXACT)] = 0
    base: Digest = ""


class Preprocessing(Agreed):
    """What is done to every input before a model sees it, the same at all parties.

    Attributes:
        mean: Per-channel mean that is taken off, in model range; empty for none.
        std: Per-channel standard deviation that is then divided by; empty for none.
    """

    mean: Annotated[tuple[float, ...], Field(max_length=2**16)] = ()
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=2**16)] = ()


class InputSpec(Agreed):
    """What a model takes.

    Attributes:
        shape: Shape of one input, channels first, or of one observation.
        dtype: How values are stored, for example `uint8`; empty where not stated.
        scale: What a stored value is multiplied with; None where not stated.
        features: Names of the columns of a table, in order; empty where there are none, or none is stated.
        preprocessing: What is done to every input.
    """

    shape: Annotated[tuple[Annotated[int, Field(ge=1, lt=2**32)], ...], Field(max_length=8)] = ()
    dtype: Annotated[str, Field(max_length=32), Shown] = ""
    scale: Annotated[float, Field(gt=0)] | None = None
    features: Names = ()
    preprocessing: Preprocessing = Preprocessing()

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> Self:
        channels, (mean, std) = self.shape[0] if self.shape else 0, (self.preprocessing.mean, self.preprocessing.std)
        if len(mean) != len(std) or len(mean) not in {0, channels}:
            raise ValueError(f"mean and std need one value each for the {channels} channels, or none")
        return self


class HeadSpec(Agreed):
    """One thing that a model says of an input.

    Attributes:
        name: What it is called among the task's heads.
        kind: Kind of task that it is by itself, in tasks of several; empty where it is the task's.
        size: How many numbers it has: classes, actions, targets.
        labels: What these are called, in order; empty where not stated.
        units: Units of targets, in order; empty where they have none, or none is stated.
        mean: What is taken off each target; empty for nothing.
        std: What each target is then divided by; empty for nothing.
        weights: What the loss of each class, label or target is multiplied with; empty for 1 each.
    """

    name: Kind
    kind: Kind | Literal[""] = ""
    size: Annotated[int, Field(ge=1, lt=2**32)]
    labels: Names = ()
    units: Names = ()
    mean: Annotated[tuple[float, ...], Field(max_length=2**16)] = ()
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=2**16)] = ()
    weights: Annotated[tuple[Annotated[float, Field(gt=0, le=1e6)], ...], Field(max_length=2**16)] = ()

    @model_validator(mode="after")
    def _one_for_each(self) -> Self:
        for name in ("labels", "units", "mean", "std", "weights"):
            given = len(getattr(self, name))
            if given not in {0, self.size}:
                raise ValueError(f"{name} needs one for each of the {self.size}, or none, not {given}")
        return self


Aspect = Literal["inputs", "outputs"]
"""What of a task parties may have to mean alike: what a model takes, and what it says of it."""

ASPECTS: frozenset[Aspect] = frozenset(get_args(Aspect))


class TaskSpec(Agreed):
    """What models are for; `comity.tasks` knows the kinds.

    Attributes:
        kind: The kind of task.
        options: What the kind needs to know beside it, for example which environment is played.
        inputs: What a model takes.
        heads: What it says of an input, in order.
    """

    kind: Kind
    options: Options = {}
    inputs: InputSpec = InputSpec()
    heads: Annotated[tuple[HeadSpec, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _each_head_once(self) -> Self:
        if len({head.name for head in self.heads}) != len(self.heads):
            raise ValueError("each head has a name of its own")
        return self


Retention = Literal["round", "session", "result"]
"""How long the receiver keeps what was released: until the round has ended, or the session has; or it is part of what the
session leaves."""


class Release(Agreed):
    """What stands behind something that a party sends; it may differ from one time to the next, since data grow.

    Attributes:
        samples: Samples behind it: those that it was trained or evaluated on, or drawn from.
        kept: How long the receiver keeps it.
    """

    samples: Annotated[int, Field(ge=0, lt=2**64)]
    kept: Retention = "round"


class Membership(Agreed):
    """A party's part in a session.

    Attributes:
        party: Name of the party, as in its certificate.
        role: What it does in the session, as its protocol calls it.
        samples: Training samples, or episodes of an evaluation, that it declares when it agrees; 0 for a party that does
            not train. What stands behind a later release, the release says.
        receipt_key: Ed25519 public key of its statements, 64 hexadecimal digits.
    """

    party: Identifier
    role: Text
    samples: Annotated[int, Field(ge=0, lt=2**64)]
    receipt_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


PriceRule = Literal["each", "by_share"]
"""Who owes what: `each` that asks owes each that helps the amount for every unit that is charged; or the amount of a round is
shared out `by_share`, as the protocol values what each party's part in the round was worth."""


class Price(Agreed):
    """What a session costs. No money moves here: both sides can work out the same sum from what they signed for.

    Attributes:
        amount: For a unit that is charged: a round, or a request, as the protocol counts.
        currency: In what.
        rule: Who owes it to whom.
    """

    amount: Annotated[float, Field(ge=0, le=1e12)]
    currency: Annotated[str, Field(max_length=16), Shown] = "EUR"
    rule: PriceRule = "each"


class Contract(Agreed):
    """What a session agrees to.

    Attributes:
        protocol: Registered name of the protocol.
        version: Version of the protocol.
        session: Identifier of the session, chosen by the party that asks.
        seed: Seed of everything public that all parties must agree on, such as the initial weights.
        rounds: Rounds bought.
        models: The models that cross, by what the protocol calls them, for example `model`.
        task: What the models are for.
        initiator: Party that asks for help; empty where an acceptor opened the session to many, who join it.
        acceptors: Parties that help.
        egress: Kinds that may cross, in either direction.
        max_silence_s: How long the acceptor goes on without a call of the initiator's, in seconds; then it ends the session,
            unless it waits for a person or a party. None for ever; an open session has no one initiator.
        max_duration_s: How long the session is valid from when the acceptor entered it, in seconds: then it is ended, also
            where it serves answers and would have no end of its own. None for no limit.
        price: What its units cost; None where nothing was said of that.
        terms: The protocol's own terms.
    """

    protocol: Text
    version: Annotated[int, Field(ge=1)]
    session: Identifier
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    models: Annotated[dict[Kind, ModelSpec], Field(max_length=16)]
    task: TaskSpec
    initiator: Identifier | Literal[""]
    acceptors: Annotated[tuple[Identifier, ...], Field(max_length=1000)]
    egress: Annotated[tuple[EgressKind, ...], Field(max_length=64)]
    max_silence_s: Duration | None = None
    max_duration_s: Duration | None = None
    price: Price | None = None
    terms: SerializeAsAny[Terms]

    @property
    def is_open(self) -> bool:
        """Whether many may join it, each asking for itself."""
        return not self.initiator

    @property
    def weights_sent(self) -> Mapping[str, int]:
        """Length of the weights to begin with that may be sent to whoever lacks them, by digest."""
        models = self.models.values() if INITIAL in self.egress else ()
        return {each.initial: each.initial_bytes for each in models if each.initial}

    @property
    def hash(self) -> str:
        """BLAKE3 (hexadecimal) of the contract's canonical form: JSON, keys sorted, no spaces."""
        return blake3(canonical(self.model_dump(mode="json"))).hexdigest()


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def canonical(value: object) -> bytes:
    """Encodes a JSON value in the one form that is hashed: sorted keys, no spaces, shortest floats, UTF-8."""
    return _ENCODER.encode(value).encode()
