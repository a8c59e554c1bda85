"""What a service that a protocol adds to a node is given; see `ServiceExtension`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from comity.transport.identity import Identity

Result = TypeVar("Result")


class InSession(Protocol):
    """Has something done by a session's role, at the party that helps."""

    def __call__(self, session: str, request: Callable[[Any], Result]) -> Result:
        """Runs `request` with the role, between two units of its work, and returns its result.

        Raises:
            InvalidValue: No such session is active here.
            NodeDraining: It is being stopped.
        """


@dataclass(frozen=True)
class ServiceContext:
    """The node that a service belongs to.

    Attributes:
        party: The node's party.
        role: Its role.
        settings: Its settings of the protocol; None where the protocol has none.
        identity: Its certificate and whom it trusts; a service may trust others.
        state_dir: What the node keeps; each session that ended well has `sessions/SESSION/result.json` in it.
        drain_s: How long active calls may take when the node is stopped, in seconds.
        in_session: Reaches the role of a session in which the node helps.
    """

    party: str
    role: str
    settings: Any
    identity: Identity
    state_dir: Path
    drain_s: float
    in_session: InSession


RunService = Callable[[ServiceContext], AbstractContextManager[str | None]]
"""Starts a service and gives its address, or None where the node's settings leave it out; at the end, drains it."""
