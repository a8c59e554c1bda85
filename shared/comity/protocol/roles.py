"""The roles of a protocol, as far as whoever runs them needs to know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol, runtime_checkable

from comity.contract import Json
from comity.errors import ComityError
from comity.session.contexts import PeerContext
from comity.session.outcome import Outcome
from comity.session.worker import Steppable


class Initiator(Protocol):
    """The role of the party that asks."""

    def work(self) -> Iterator[None]:
        """Does what is left of the session; yields where it is another initiator's turn, if there are any in this process."""

    def outcome(self) -> Outcome:
        """What the session came to, when the work is done."""


@dataclass(frozen=True, slots=True)
class OperatorReply:
    """What a role answers its own operator.

    Attributes:
        fields: What there is to say.
        data: Bytes that go with it, for example a picture.
    """

    fields: Mapping[str, Json] = field(default_factory=dict)
    data: bytes = b""


@runtime_checkable
class Operable(Protocol):
    """An asking role that has something to do with its own operator: it asks people for labels, for example."""

    def operated(self, call: str, fields: Mapping[str, Json]) -> OperatorReply:
        """Answers the operator.

        It comes in a thread of its own while the role works or waits, and it is the role's to keep the two apart.

        Args:
            call: What is wanted; belongs to the protocol.
            fields: What there is to say of it.

        Raises:
            ComityError: It cannot be done. The session goes on as if it had not been asked.
        """


class Acceptor(Steppable, Protocol):
    """The role of the party that helps: works in steps, between the calls of its peer."""


class JoinedAcceptor(Acceptor, Protocol):
    """An accepting role that many join."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do for anybody; the session then ends."""

    @property
    def failure(self) -> ComityError | None:
        """Why the session cannot go on, where that is so."""

    def wakes_in(self) -> float | None:
        """Seconds until there may be work, or the end, without a call; None for never."""

    def admit(self, context: PeerContext) -> None:
        """Lets an initiator in; again, one that is in."""

    def leave(self, party: str) -> None:
        """Goes on without an initiator."""

    def outcome(self) -> Outcome:
        """What the session came to, when it is over."""


def run(*roles: Initiator) -> list[Outcome]:
    """Runs initiators to their end, in turns."""
    for _ in zip_longest(*(role.work() for role in roles)):
        pass
    return [role.outcome() for role in roles]
