"""Who does what in a simulation: roles, names, data and models of the parties that a user described."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from comity.contract import IDENTIFIER, Json, Option, Preprocessing
from comity.data import Dataset, Meaning, SplitName, Splits
from comity.data.objects import Samples, by_split, classes_of, dataset, listed_classes, samples
from comity.environments import EnvironmentSet
from comity.errors import InvalidValue
from comity.front.factories import factory
from comity.front.party import HeldParty, Model, Party, section, table
from comity.models import Factory
from comity.node.holdings import Holdings
from comity.protocol.definition import ProtocolDefinition
from comity.tasks import kind_for
from comity.tasks.meaning import meaning_of, with_meaning


@dataclass(frozen=True)
class Cast:
    """The parties of a session.

    Attributes:
        parties: Each with its role and data, by name.
        acceptors: Those that help.
        models: `[session.models]`.
        task: `[session.task]`; None where the party that drafts the contract has data of its own.
    """

    parties: dict[str, HeldParty]
    acceptors: list[str]
    models: dict[str, dict[str, Any]]
    task: dict[str, Any] | None


def cast(
    described: Sequence[Party],
    definition: ProtocolDefinition,
    models: tuple[str, ...],
    normalization: Preprocessing,
    classes: int | None,
) -> Cast:
    """Gives every party its role, its name, its data and its models.

    Args:
        described: The parties.
        definition: The protocol.
        models: The models that it has.
        normalization: What is done to every input.
        classes: How many classes there are; None for what the labels of all parties say.

    Raises:
        UsageError: A party cannot be used.
    """
    named = _named(described, definition)
    chosen = {each: _chosen(each, named, models) for each in models}
    sections = {
        name: section(each, name, str(each.role), definition.name, data=None, factories={})
        for name, each in named.items()
    }
    held = _data(named, sections, classes)
    for name, each in named.items():
        made = {key.name: key.factory_of(name, each, model) for model, key in chosen.items()}
        sections[name].hold(held[name], {title: found for title, found in made.items() if found is not None})
    center = next((name for name, each in named.items() if each.role == definition.center), None)
    task = None
    if center is None or held[center] is None:
        task = _task(next((each for each in held.values() if each is not None), None), normalization)
    return Cast(
        sections,
        [name for name, each in named.items() if each.role == definition.acceptor],
        {model: {"name": each.name, "options": dict(each.options), **each.form} for model, each in chosen.items()},
        task,
    )


@dataclass(frozen=True)
class _Chosen:
    """The model of a session.

    Attributes:
        name: What the session calls it.
        options: Options of its factory.
        form: How it begins, and what of it is trained.
        model: What the first party that says one says.
        party: Who that is.
    """

    name: str
    options: Mapping[str, Option]
    form: Mapping[str, Json]
    model: Model
    party: str

    def factory_of(self, name: str, party: Party, model: str) -> Factory | None:
        """What makes the model at a party; None where it has the name alone."""
        own = _said(party, model)
        if own is not None and (isinstance(own, str) or isinstance(self.model, str)) and own != self.model:
            raise InvalidValue(
                f"{name} has another model than {self.party}",
                expected=self.model if isinstance(self.model, str) else self.name,
                received=own if isinstance(own, str) else _title(own),
                action="give all parties the same, or only one of them",
            )
        wanted = self.model if own is None else own
        return None if isinstance(wanted, str) else factory(wanted, name)


def _named(described: Sequence[Party], definition: ProtocolDefinition) -> dict[str, Party]:
    """The parties by name, each with its role."""
    joined = definition.topology.is_joined
    asked = any(each.role == definition.initiator for each in described)
    cast = []
    for each in described:
        role = each.role
        if role is None:
            role = definition.initiator if joined or not asked else definition.acceptor
            asked = True
        if role not in definition.roles:
            raise InvalidValue(
                f"there is no {role} in {definition.name}",
                expected=" or ".join(definition.roles),
                received=role,
                action="correct the party's role, or leave it out",
            )
        cast.append(replace(each, role=role))
    if joined and not any(each.role == definition.acceptor for each in cast):
        cast.append(Party(role=definition.acceptor))
    of_role = Counter(each.role for each in cast)
    for role in definition.roles:
        if not of_role[role]:
            raise InvalidValue(
                f"no party is the {role}",
                expected=f"a {definition.initiator}, which asks, and a {definition.acceptor}, which helps",
                received=", ".join(f"{count} of role {name}" for name, count in of_role.items()) or "no party",
                action="add a comity.Party, or correct the roles",
            )
    seen: Counter[str | None] = Counter()
    found: dict[str, Party] = {}
    for each in cast:
        seen[each.role] += 1
        name = each.name or (f"{each.role}-{seen[each.role]}" if of_role[each.role] > 1 else str(each.role))
        if not re.fullmatch(IDENTIFIER, name):
            raise InvalidValue(
                "a party's name cannot be used",
                expected="letters, digits, dots, hyphens and underscores, 64 at most",
                received=repr(name)[:100],
                action="give it a name as certificates have them, such as clinic-1",
            )
        if name in found:
            raise InvalidValue("two parties have one name", expected="a name each", received=name)
        found[name] = each
    return found


def _said(party: Party, model: str) -> Model | None:
    """What a party says of a model."""
    return party.model.get(model) if isinstance(party.model, Mapping) else party.model


def _title(model: Callable[..., nn.Module]) -> str:
    return f"python:{getattr(model, '__name__', type(model).__name__)}"


def _chosen(model: str, named: Mapping[str, Party], models: tuple[str, ...]) -> _Chosen:
    """What the first party that says one says of a model."""
    for name, party in named.items():
        if isinstance(party.model, Mapping) and (unknown := [each for each in party.model if each not in models]):
            raise InvalidValue(
                f"{name}: there is no such model", expected=" and ".join(models), received=", ".join(unknown)
            )
        said = _said(party, model)
        if said is not None and len(models) > 1 and not isinstance(party.model, Mapping):
            raise InvalidValue(
                f"{name} names one model",
                expected=f"a dict with {', '.join(models)}",
                received="one",
                action="write model={" + ", ".join(f"{each!r}: …" for each in models) + "}",
            )
        if said is not None:
            # For its errors, which name who said it.
            title = said if isinstance(said, str) else (factory(said, name), _title(said))[1]
            return _Chosen(title, party.options, party.form, said, name)
    raise InvalidValue(
        "no party says which model is trained",
        expected="model= at one party: a class of torch.nn.Module, a function that makes one, or a name such as 'mlp'",
        received="none",
        action="comity.Party(model=Net, data=…)"
        if len(models) == 1
        else "comity.Party(model={" + ", ".join(f"{each!r}: …" for each in models) + "}, data=…)",
    )


def _data(
    named: Mapping[str, Party], sections: Mapping[str, HeldParty], classes: int | None
) -> dict[str, Splits | EnvironmentSet | None]:
    """The data of all parties, whose classes are those of all together."""
    loaded = {name: Holdings(name, each.data).data for name, each in sections.items()}
    own: dict[str, dict[SplitName, Samples]] = {}
    for name, party in named.items():
        own[name] = _given(party, name)
        if isinstance(party.data, Splits):
            loaded[name] = party.data
    counts = [each.train.classes for each in loaded.values() if isinstance(each, Splits)]
    counts += [classes_of(each) for given in own.values() for each in given.values()]
    counts += [len(names) for each in named.values() if (names := listed_classes(each.data))]
    count = classes or max([2, *counts])
    # Who writes all parties in one place means the same by their numbers, unless somebody names them otherwise.
    meant = next((each.train.meaning for each in loaded.values() if isinstance(each, Splits)), Meaning())
    listed = next((names for each in named.values() if (names := listed_classes(each.data))), meant.labels)
    found: dict[str, Splits | EnvironmentSet | None] = {}
    for name, party in named.items():
        meaning = replace(meant, labels=listed_classes(party.data) or listed)
        made = {
            split: dataset(each, count, f"{name}'s {'' if split == 'train' else split + ' '}data", meaning)
            for split, each in own[name].items()
        }
        others = {split: each for split, each in made.items() if split not in {"train", "test"}}
        known, testing = loaded[name], made.get("test")
        if "train" in made:
            found[name] = _alike(name, made["train"], testing, others)
        elif isinstance(known, Splits):
            found[name] = known if testing is None else _alike(name, known.train, testing, known.others)
        elif known is None and testing is not None:
            found[name] = Splits(testing.select(torch.empty(0, dtype=torch.int64)), testing)
        else:
            found[name] = known
    return found


def _given(party: Party, name: str) -> dict[SplitName, Samples]:
    """The samples that a party has in memory, by what they are for."""
    found: dict[SplitName, Samples] = {}
    apart = by_split(party.data)
    if apart is not None:
        found = {
            split: samples(each, f"{name}'s {'' if split == 'train' else split + ' '}data", split)
            for split, each in apart.items()
        }
    elif party.data is not None and table(party.data) is None and not isinstance(party.data, Splits):
        found["train"] = samples(party.data, f"{name}'s data")
    if party.test is not None:
        if "test" in found:
            raise InvalidValue(f"{name} has test data twice", expected="test= or data['test']", received="both")
        found["test"] = samples(party.test, f"{name}'s test data", "test")
    return found


def _alike(name: str, train: Dataset, test: Dataset | None, others: Mapping[SplitName, Dataset]) -> Splits:
    for split, each in {"test": test, **others}.items():
        if each is not None and each.kind != train.kind:
            raise InvalidValue(
                f"{name}'s {split} samples are not like those to train on",
                expected=train.kind,
                received=each.kind,
                action="prepare both in the same way",
            )
    return Splits(train, test, others)


def _task(data: Splits | EnvironmentSet | None, normalization: Preprocessing) -> dict[str, Any]:
    """`[session.task]` of some party's data."""
    if data is None:
        raise InvalidValue(
            "no party has data",
            expected="data= at those that train: (inputs, labels), a torch Dataset, or a source such as 'digits'",
            received="none",
            action="comity.Party(data=…)",
        )
    task = with_meaning(kind_for(data).of(data, normalization), meaning_of(data))
    return {
        "kind": task.kind,
        "options": task.options,
        "input_shape": task.inputs.shape,
        "features": task.inputs.features,
        "heads": [each.model_dump() for each in task.heads],
    }
