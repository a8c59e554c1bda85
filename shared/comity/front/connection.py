"""A node that runs, driven from Python: what `comity run`, `watch`, `sessions` and `cancel` do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from threading import Event as Signal
from types import TracebackType
from typing import Any, Self

from comity.contract import Option, Terms
from comity.errors import InvalidValue, MissingFile, NodeDraining, PeerUnreachable
from comity.front.progress import RoundsBar, row
from comity.front.result import Result
from comity.front.scripts import ScriptLike, protocol_of, script_of, session_script
from comity.node.artifacts.keeping import read_kept
from comity.node.control_client import ControlClient, raise_failure
from comity.node.operating import NodeChoice
from comity.node.sessions.overview import SessionSummary
from comity.node.sessions.script import session_text
from comity.protocol.registry import protocol
from comity.session.events import Event

_LOOK_S = 0.1
"""How often to look for a node that is being started."""
_OVER_BADLY = {"session-failed", "session-cancelled", "session-refused", "session-stopped"}


def connect(node: Path | str, operator: Path | str = ".", *, wait_s: float = 0.0) -> Node:
    """A node that runs.

    Args:
        node: Its folder, its `state_dir`, its control socket, or `PARTY@HOST:PORT`, its control port.
        operator: Folder of the operator's key and certificate (`comity init operator`), for a control port.
        wait_s: How long to wait for a node that is being started, in seconds.

    Raises:
        MissingFile: No node runs there, or the operator has no key.
        InvalidValue: It cannot be reached like this.
        PeerUnreachable: It does not answer.
    """
    deadline = time.monotonic() + wait_s
    between = Signal()
    while True:
        try:
            return Node(NodeChoice(str(node), operator=str(operator)).connect())
        except (MissingFile, PeerUnreachable):
            if time.monotonic() >= deadline:
                raise
        between.wait(_LOOK_S)


class Node:
    """A node that runs; `connect` gives one.

    Args:
        control: The connection to it.

    Attributes:
        party: The party whose node it is.
        role: What it does.
        protocols: The protocols that it takes part in.
        address: Where its peers reach it; empty for a node that only asks.
    """

    def __init__(self, control: ControlClient) -> None:
        self._control = control
        try:
            described = control.describe()
        except BaseException:
            self.close()
            raise
        self.party: str = described.party
        self.role: str = described.role
        self.protocols: list[str] = list(described.protocols)
        self.address: str = described.address
        self._state = Path(described.state_dir)

    def __enter__(self) -> Self:
        """The node itself; the connection is closed at the end of the body."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection. Sessions go on."""
        self.close()

    def __repr__(self) -> str:
        """Who it is."""
        return f"<Node {self.party}, {self.role}, {', '.join(self.protocols)}>"

    def close(self) -> None:
        """Closes the connection. Sessions go on."""
        self._control.__exit__(None, None, None)

    def run(  # noqa: PLR0913 - as many as a session has to say
        self,
        session: ScriptLike | Terms,
        *,
        acceptors: Sequence[str] = (),
        model: str | None = None,
        options: Mapping[str, Option] | None = None,
        rounds: int = 10,
        seed: int = 0,
        id: str | None = None,
    ) -> Session:
        """Starts a session; returns at once.

        Args:
            session: A script (a path, TOML or a dict), which says all of it; or a protocol's terms.
            acceptors: With terms: who helps.
            model: With terms: the model, by a name that all nodes know.
            options: With terms: options of its factory.
            rounds: With terms: rounds to buy.
            seed: With terms: seed of the initial weights.
            id: With terms: identifier of the session.

        Raises:
            UsageError: It cannot be used.
            RefusedError: The node's own policy refuses it.
        """
        text = self._script(session, acceptors, model, options, rounds=rounds, seed=seed, id=id)
        return Session(self, self._control.run(text))

    def open(
        self,
        session: ScriptLike | Terms,
        *,
        model: str | None = None,
        options: Mapping[str, Option] | None = None,
        rounds: int = 10,
        seed: int = 0,
        id: str | None = None,
    ) -> Session:
        """Opens a session that others join; see `run`."""
        text = self._script(session, [self.party], model, options, rounds=rounds, seed=seed, id=id)
        return Session(self, self._control.open(text))

    def join(self, acceptor: str, session: str) -> Session:
        """Joins a session that another party has opened."""
        self._control.join(acceptor, session)
        return Session(self, session)

    def sessions(self) -> list[SessionSummary]:
        """Every session of the node, oldest first."""
        return [
            SessionSummary(
                each.session,
                each.protocol,
                each.role,
                tuple(each.peers),
                each.state,  # type: ignore[arg-type]
                each.rounds,
                each.rounds_finished,
                each.begun.ToDatetime(UTC).isoformat(),
            )
            for each in self._control.sessions()
        ]

    def session(self, session: str) -> Session:
        """A session by its identifier."""
        return Session(self, session)

    def watch(self, session: Session | str) -> Iterator[dict[str, Any]]:
        """The rounds of a session, from its first, as they come; ends with it.

        Raises:
            ComityError: What the session failed with.
        """
        for event in self.events(session):
            if event.kind == "round-finished":
                yield row(event)

    def events(self, session: Session | str) -> Iterator[Event]:
        """All that happens in a session, from its beginning to its end.

        Raises:
            ComityError: What the session failed with.
        """
        name = str(session)
        for event in self._control.watch(name):
            yield event
            if event.kind in _OVER_BADLY:
                raise_failure(event)
            if event.kind == "session-finished":
                return
        raise NodeDraining("the node stopped", action="start it again: it goes on by itself, and can be watched again")

    def cancel(self, session: Session | str) -> bool:
        """Ends a session before its time; returns whether the other party was told."""
        return self._control.cancel(str(session))

    def result(self, session: Session | str, *, progress: bool | None = None) -> Result:
        """Follows a session to its end, and gives what it came to.

        Args:
            session: The session.
            progress: Whether to show a bar; left out, in a terminal or a notebook.

        Raises:
            ComityError: What the session failed with.
        """
        with RoundsBar(progress) as bar:
            for event in self.events(session):
                bar.observe(event)
        details = self._control.details(str(session))
        definition = protocol(json.loads(details.contract)["protocol"])
        fields: Any = bar.events[-1].fields
        if "digest" not in fields["result"]:
            raise InvalidValue(
                f"{self.party} helped in session {session}, which left nothing here",
                expected=f"the node of the {definition.initiator}, whose session it is",
                received=self.role,
                action="its rounds are in .watch()",
            )
        left = read_kept(self._state / "sessions" / str(session))
        return Result(fields["result"], left, bar.rounds, bar.events)

    def _script(
        self,
        session: ScriptLike | Terms,
        acceptors: Sequence[str],
        model: str | None,
        options: Mapping[str, Option] | None,
        **rest: Any,
    ) -> str:
        if not isinstance(session, Terms):
            script = script_of(session)
            script.require_no_parties()
            return session_text(script)
        if model is not None and not isinstance(model, str):
            raise InvalidValue(
                "a running node takes models by name",
                expected="a name that all nodes know",
                received=type(model).__name__,
                action='name the code in [models] of each node.toml, such as net = "python:package.module:Net"',
            )
        section = None if model is None else {"name": model, "options": dict(options or {})}
        return session_text(
            session_script(protocol_of(session), session, acceptors=list(acceptors), model=section, **rest)
        )


class Session:
    """A session of a node; `str` of it is its identifier.

    Args:
        node: The node.
        id: The identifier.
    """

    def __init__(self, node: Node, id: str) -> None:
        self._node = node
        self.id = id

    def __str__(self) -> str:
        """Its identifier."""
        return self.id

    def __repr__(self) -> str:
        """Which it is."""
        return f"<Session {self.id} of {self._node.party}>"

    @property
    def state(self) -> str:
        """`running`, `waiting`, `stopped`, `finished`, `failed`, `cancelled` or `refused`."""
        return next((each.state for each in self._node.sessions() if each.session == self.id), "unknown")

    def watch(self) -> Iterator[dict[str, Any]]:
        """Its rounds as they come; see `Node.watch`."""
        return self._node.watch(self)

    def result(self, *, progress: bool | None = None) -> Result:
        """What it comes to, once it is over; see `Node.result`."""
        return self._node.result(self, progress=progress)

    def cancel(self) -> bool:
        """Ends it before its time; returns whether the other party was told."""
        return self._node.cancel(self)
