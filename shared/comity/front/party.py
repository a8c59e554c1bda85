"""A party of a simulation, as a user describes it in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr
from torch import nn

from comity.contract import Json, Option
from comity.data import DataConfig, Splits
from comity.data.objects import by_split
from comity.environments import EnvironmentConfig, EnvironmentSet
from comity.errors import InvalidValue
from comity.models import Factory
from comity.node.sessions.script import PartySection
from comity.node.validation import validated

Model = str | Callable[..., nn.Module]
"""The name of a model, or what makes one: called with nothing, or with `(input_shape, outputs)`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Party:
    """A party of a simulation.

    Attributes:
        model: What makes its model (a class of `torch.nn.Module`, or a function), or the name of one (`comity models`
            lists them); for a protocol with several models, those by what the protocol calls them. Left out, the model of
            the first party that says one.
        data: Its samples: tensors or arrays `(inputs, labels)`, a torch `Dataset` of such pairs, the name of a source
            such as `"digits"` or `"npz:scans.npz"`, or a table as `node.toml` has it; or several by what they are for,
            `{"train": …, "calibration": …, "pool": …}`, of which a third member of a tuple marks protected samples, and
            unknown labels are None. None for a party without.
        test: Samples to test on, likewise; a named source brings its own.
        role: What it does, as the protocol calls it. Left out, the first party asks and the others help; where many ask
            one, all ask.
        name: What it is called; left out, its role, with a number where there are several.
        options: Options of the factory of its model.
        form: How its model begins and what of it is trained, as `[session.model]` of a script has it: `initial`, `fresh`,
            `trainable`, `lora`, `answer`, `until`.
        weights: Files of weights, by the names that `form["initial"]` may have.
        device: `auto`, `cpu`, `cuda` …
        settings: Its own settings of the protocol, as `[protocols.NAME]` in `node.toml` has them.
        policy: What it agrees to, as `[policy]` in `node.toml` has it.
        privacy: How it looks after its samples, as `[privacy]` in `node.toml` has it; left out, nothing is held back, since
            nothing leaves this process.
        training: How it makes the steps of its trainings, as `[training]` in `node.toml` has it.
        secret: What its own randomness comes from; left out, its name and the seed, so that a simulation repeats.
    """

    model: Model | Mapping[str, Model] | None = None
    data: Any = None
    test: Any = None
    role: str | None = None
    name: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    form: Mapping[str, Json] = field(default_factory=dict)
    weights: Mapping[str, Path | str] = field(default_factory=dict)
    device: str = "auto"
    settings: Mapping[str, Json] = field(default_factory=dict)
    policy: Mapping[str, Json] = field(default_factory=dict)
    privacy: Mapping[str, Json] = field(default_factory=dict)
    training: Mapping[str, Json] = field(default_factory=dict)
    secret: str | None = None


class HeldParty(PartySection):
    """A party of a script that has its data and its models in this process."""

    _held: Splits | EnvironmentSet | None = PrivateAttr(None)
    _factories: dict[str, Factory] = PrivateAttr(default_factory=dict)

    @property
    def own_data(self) -> DataConfig | EnvironmentConfig | Splits | EnvironmentSet | None:
        """See `PartyConfig.own_data`."""
        return self.data if self._held is None else self._held

    @property
    def own_models(self) -> Mapping[str, str | Factory]:
        """See `PartyConfig.own_models`."""
        return {**self.models, **self._factories}

    def hold(self, data: Splits | EnvironmentSet | None, factories: Mapping[str, Factory]) -> None:
        """Takes data and factories as objects."""
        self._held = data
        self._factories = dict(factories)


def section(
    party: Party,
    name: str,
    role: str,
    protocol: str,
    *,
    data: Splits | EnvironmentSet | None,
    factories: Mapping[str, Factory],
) -> HeldParty:
    """A party as a script has it.

    Args:
        party: The party.
        name: What it is called.
        role: What it does.
        protocol: In which protocol.
        data: Its data, where they are objects.
        factories: Its models, where they are objects, by the names that the session gives them.

    Raises:
        UsageError: A setting cannot be used.
    """
    values: dict[str, Any] = {"role": role, "device": party.device, "policy": dict(party.policy)}
    if party.secret is not None:
        values["secret"] = party.secret
    if party.privacy:
        values["privacy"] = dict(party.privacy)
    if party.training:
        values["training"] = dict(party.training)
    if party.weights:
        values["weights"] = dict(party.weights)
    if party.settings:
        values["protocols"] = {protocol: dict(party.settings)}
    if (source := table(party.data)) is not None:
        values["data"] = source
    found = validated(HeldParty, values, name)
    found.hold(data, factories)
    return found


def table(data: Any) -> dict[str, Any] | None:
    """Data by name, as `node.toml` has them; None for data that are something else."""
    if isinstance(data, str):
        return {"source": data}
    return dict(data) if isinstance(data, Mapping) and by_split(data) is None else None


Parties = Iterable[Party] | Mapping[str, Party]
"""Parties, or parties by name."""


def require_parties(parties: Any) -> list[Party]:
    """Checks that these are parties.

    Raises:
        InvalidValue: They are not.
    """
    if isinstance(parties, Mapping):
        named = [replace(each, name=name) if isinstance(each, Party) else each for name, each in parties.items()]
        return require_parties(named)
    found = list(parties) if isinstance(parties, Iterable) and not isinstance(parties, str) else [parties]
    for each in found:
        if not isinstance(each, Party):
            raise InvalidValue(
                "the parties cannot be used",
                expected="a list of comity.Party, or a dict of them by name",
                received=type(each).__name__,
                action="write [comity.Party(model=…, data=…), comity.Party(data=…)]",
            )
    return found
