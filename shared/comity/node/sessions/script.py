"""A session as a script: what becomes its contract, and, for simulations, who takes part with which data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field

from comity.contract import (
    WEEK_S,
    Duration,
    HeadSpec,
    Identifier,
    Kind,
    ModelForm,
    ModelSpec,
    Names,
    Options,
    Preprocessing,
    Price,
)
from comity.errors import InvalidValue
from comity.node.config import PartyConfig
from comity.node.validation import parse_toml, validated
from comity.node.weights import WeightsRef

MODEL = "model"
"""What protocols with one model call it."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelSection(ModelForm):
    """A model.

    Attributes:
        name: Name of a model that all parties have.
        options: Options of its factory.
        initial: Weights that it begins with: a name in `[weights]` of the drafting node, or `session:` and the identifier of
            an earlier session; empty for those that the seed decides.
    """

    name: str
    options: Options = Field(default_factory=dict)
    initial: str = ""

    def spec(self, named: Callable[[str], WeightsRef]) -> ModelSpec:
        """The model as a contract names it, before it is signed.

        Args:
            named: Gives digest and length of weights that are named here.
        """
        fields = self.model_dump()
        if self.initial:
            fields["initial"], fields["initial_bytes"] = named(self.initial)
        return ModelSpec.model_validate(fields)


class TaskSection(_Section):
    """What the models are for; what is left out, the drafting party's data say.

    Attributes:
        kind: Kind of task; left out, the one that the data are for.
        options: What the kind needs to know beside it, such as `smoothing` of classification.
        input_shape: Shape of one input, channels first; a task with it says everything, and the data nothing.
        features: Names of the features, in order, where inputs are rows of a table.
        classes: Number of classes, or of what else the one head of such a task gives; or their names, in order.
        weights: What the loss of each class, label or target of the one head is multiplied with.
        heads: What a model says of an input, where `classes` does not tell all of it.
    """

    kind: Kind | None = None
    options: Options = {}
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] = ()
    features: Names = ()
    classes: Annotated[int, Field(ge=1)] | Names | None = None
    weights: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = ()
    heads: tuple[HeadSpec, ...] = ()


class SessionSection(_Section):
    """What becomes the contract.

    Attributes:
        protocol: Registered name of the protocol.
        id: Identifier of the session; left out, the node makes one.
        acceptors: Parties that help.
        rounds: Rounds to buy.
        seed: Seed of everything public, such as the initial weights.
        model: The model; short for `models.model`.
        models: The models, by what the protocol calls them.
        task: What the models are for.
        normalization: What is done to every input, in model range; part of the contract, so that all parties do the same.
            `computed`: mean and standard deviation of the drafting party's training samples, to two digits, which the
            other parties learn; and, where neither its data nor the script say, of targets that are numbers.
        max_silence_s: How long the acceptor goes on without a call of the initiator's, in seconds.
        max_duration_s: How long the session is valid, in seconds; left out, for as long as it takes.
        price: What a unit of it costs: a round, or what else the protocol counts; left out where that is no matter.
        terms: The protocol's own terms.
    """

    protocol: str
    id: Identifier | None = None
    acceptors: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelSection | None = None
    models: dict[Kind, ModelSection] = {}
    task: TaskSection | None = None
    normalization: Preprocessing | Literal["computed"] = Preprocessing()
    max_silence_s: Duration = WEEK_S
    max_duration_s: Duration | None = None
    price: Price | None = None
    terms: dict[str, Any] = {}

    @property
    def named_models(self) -> dict[str, ModelSection]:
        """The models, by what the protocol calls them.

        Raises:
            InvalidValue: One is given twice.
        """
        if self.model is None:
            return dict(self.models)
        if MODEL in self.models:
            raise InvalidValue(
                "session.model is given twice",
                expected=f"[session.model] or [session.models.{MODEL}]",
                received="both",
                action="remove one",
            )
        return {MODEL: self.model, **self.models}


class PartySection(PartyConfig):
    """A party of a simulation.

    Attributes:
        role: What it does.
    """

    role: str


class SimulationSection(_Section):
    """How to simulate.

    Attributes:
        baselines: Whether to train the protocol's baselines beside the session, for comparison.
        threads: Threads of tensor operations, on which the last digits depend; left out, torch decides.
    """

    baselines: bool = False
    threads: Annotated[int, Field(ge=1)] | None = None


class Script(_Section):
    """A session as a script.

    Attributes:
        session: What becomes the contract.
        party: Parties by name; only `comity simulate` and `comity demo` take them.
        simulation: How to simulate.
    """

    session: SessionSection
    party: dict[Identifier, PartySection] = {}
    simulation: SimulationSection = SimulationSection()

    def require_no_parties(self) -> None:
        """Checks that the script is one for a node to run.

        Raises:
            InvalidValue: It names parties, whose data and settings are in the nodes' own configuration.
        """
        if self.party:
            raise InvalidValue(
                "the script describes parties",
                expected="[session] alone: nodes have their own configuration",
                received=", ".join(f"[party.{name}]" for name in self.party),
                action="use comity simulate, or remove these tables",
            )


def session_text(script: Script) -> str:
    """The part of a script that a node runs, as TOML."""
    return tomlkit.dumps({"session": script.session.model_dump(mode="json", exclude_none=True)})


def parse_script(text: str, source: str = "script") -> Script:
    """Reads a script.

    Raises:
        UnknownKey: It holds a key that nothing reads.
        InvalidValue: It is no TOML, or a value is missing, of the wrong kind or out of range.
    """
    return validated(Script, parse_toml(text, source), source)
