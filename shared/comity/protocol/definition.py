"""What a protocol says of itself before any of its code is needed: loading it imports neither torch, grpc nor protobuf."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from comity.contract import ASPECTS, KIND, Aspect, Contract, EgressKind, Json, Terms
from comity.errors import InvalidValue
from comity.protocol.extensions import Extensions
from comity.protocol.presentation import Presentation
from comity.protocol.topology import Topology
from comity.session.events import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from comity.protocol.implementation import Implementation


@dataclass(frozen=True)
class ProtocolDefinition:
    """A protocol, as the entry-point group `comity.protocols` names it.

    Attributes:
        name: Registered name.
        version: Version of its messages and rules; both sides must have the same.
        initiator: Role of the party that asks.
        acceptor: Role of the party that helps.
        topology: Which of them talk to which.
        egress: Kinds that cross in it; terms may do without some.
        trains: Roles that train on data of their own.
        terms: Its part of a contract.
        presentation: What people look at.
        implementation: `package.module:NAME` of what needs torch, grpc and protobuf.
        models: What it calls the models of a contract; terms may do without some.
        tasks: Kinds of task that it is for; empty for all.
        agrees: What of a contract's task the data of a role have to be for, `inputs` and `outputs`; of roles that are left
            out, all of it.
        unit: What a charge counts.
        shows: What kinds that cross show of samples however they are trained, in a few words by kind; `comity check` says it.
        extensions: What it adds to a node.

    Raises:
        InvalidValue: One of them is something else.
    """

    name: str
    version: int
    initiator: str
    acceptor: str
    topology: Topology
    egress: tuple[EgressKind, ...]
    trains: frozenset[str]
    terms: type[Terms]
    presentation: Presentation
    implementation: str
    models: tuple[str, ...] = ("model",)
    tasks: tuple[str, ...] = ()
    agrees: Mapping[str, frozenset[Aspect]] = field(default_factory=dict)
    unit: str = "round"
    shows: Mapping[str, str] = field(default_factory=dict)
    extensions: Extensions = field(default_factory=Extensions)

    def __post_init__(self) -> None:
        """Checks what a package says of itself, since whoever uses it does not."""
        for name, fits, expected in self._checked():
            if not fits:
                raise InvalidValue(
                    f"{name} of the protocol's definition cannot be used",
                    expected=expected,
                    received=repr(getattr(self, name))[:200],
                    action="correct it in the package that has it",
                )

    def _checked(self) -> Iterator[tuple[str, bool, str]]:
        """For each field whether it can be used, and what is expected of it."""
        for name in ("name", "initiator", "acceptor", "unit"):
            yield name, _are_kinds([getattr(self, name)]), f"a name like {KIND}"
        yield "acceptor", self.acceptor != self.initiator, "another role than the initiator's"
        yield "version", type(self.version) is int and self.version > 0, "a whole number from 1 on"
        yield "topology", isinstance(self.topology, Topology), "a Topology"
        for name in ("egress", "models", "tasks"):
            yield name, isinstance(getattr(self, name), tuple) and _are_kinds(getattr(self, name)), "a tuple of names"
        trains = self.trains
        yield "trains", isinstance(trains, frozenset) and trains <= {*self.roles}, "a frozenset of its roles"
        agrees = self.agrees
        known = isinstance(agrees, Mapping) and all(
            role in self.roles and {*each} <= ASPECTS for role, each in agrees.items()
        )
        yield "agrees", known, "inputs and outputs, by role"
        shows = self.shows
        said = (
            isinstance(shows, Mapping)
            and {*shows} <= {*self.egress}
            and all(isinstance(each, str) for each in shows.values())
        )
        yield "shows", said, "a text by kind, for kinds of its egress"
        yield "terms", isinstance(self.terms, type) and issubclass(self.terms, Terms), "a class of Terms"
        shown = self.presentation
        yield "presentation", isinstance(shown, Presentation), "a Presentation"
        views = (shown.view, *shown.views.values())
        yield "presentation", all({*self.roles} <= {*each.columns} for each in views), "columns for both roles"
        yield "implementation", isinstance(self.implementation, str), "package.module:NAME"
        yield "extensions", isinstance(self.extensions, Extensions), "Extensions"

    @property
    def roles(self) -> tuple[str, str]:
        """Both roles, the initiator's first."""
        return self.initiator, self.acceptor

    @property
    def center(self) -> str:
        """The role that one party alone has: it drafts the contract, and what people look at is what it sees."""
        return self.topology.center(self.initiator, self.acceptor)

    def models_of(self, terms: Terms) -> tuple[str, ...]:
        """The models of contracts with these terms."""
        return tuple(each for each in self.models if each not in terms.without)

    def egress_of(self, terms: Terms) -> tuple[EgressKind, ...]:
        """The kinds that cross in sessions with these terms."""
        return tuple(each for each in self.egress if each not in terms.without)

    def load(self) -> Implementation:
        """What needs torch, grpc and protobuf."""
        found: Implementation = resolve_name(self.implementation)
        return found

    def terms_message(self) -> Message:
        """An empty message of the terms."""
        return self.load().service.terms()

    def started(self, contract: Contract, role: str, peers: Sequence[str]) -> Event:
        """See `Presentation.started`."""
        return self.presentation.started(contract, role, peers)

    def finished(self, contract: Contract, result: Mapping[str, Json]) -> Event:
        """See `Presentation.finished`."""
        return self.presentation.finished(contract, result)


def _are_kinds(names: Sequence[object]) -> bool:
    return all(isinstance(each, str) and re.fullmatch(KIND, each) for each in names)
