"""`comity run` and `comity watch`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from blake3 import blake3

from comity.cli.files import read_script
from comity.cli.progress import SessionProgress, waiting_line
from comity.cli.tables import show_folder, show_json, show_result
from comity.errors import InvalidValue, NodeDraining
from comity.node.control_client import ControlClient, raise_failure
from comity.node.operating import NodeChoice, latest
from comity.protocol.presentation import Summary
from comity.protocol.registry import protocol
from comity.session.events import Event

if TYPE_CHECKING:
    # Scripts bring torch with them, which commands that only read do without.
    from comity.node.sessions.script import Script

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_BEGUN = {"session-started", "waiting", "session-failed", "session-cancelled", "session-refused", "session-stopped"}
"""What decides how a session began."""


def run_script(
    path: Path, *, node: NodeChoice, rounds: int | None, detach: bool, as_json: bool, lines: bool = False
) -> None:
    """Starts a session at a node, follows it and shows the result.

    Args:
        path: The script.
        node: The node.
        rounds: How many rounds to buy; None for what the script says.
        detach: Return as soon as the contract is agreed on, or somebody's approval is waited for.
        as_json: Print one JSON object instead of tables.
        lines: Print each round as a JSON object as it comes, and the result last.
    """
    text = read_script(path, rounds)
    with node.connect() as control:
        with _interruptible("whether the session began, comity sessions tells"):
            session = control.run(text)
        if detach:
            _show_begun(control, session, node, as_json=as_json or lines)
            return
        _show(control, session, node, as_json=as_json, lines=lines)


def open_script(path: Path, *, node: NodeChoice, as_json: bool) -> None:
    """Opens a session at a node, which others may join."""
    text = read_script(path)
    with node.connect() as control, _interruptible("whether the session was opened, comity sessions tells"):
        session = control.open(text)
        party = control.describe().party
    if as_json:
        show_json({"session": session, "party": party})
        return
    print(f"session {session} is open; others join it with: comity join {party} {session}")  # noqa: T201


def join_session(
    acceptor: str, session: str, *, node: NodeChoice, detach: bool, as_json: bool, lines: bool = False
) -> None:
    """Joins a session that another party has opened."""
    with node.connect() as control:
        with _interruptible("whether the session was joined, comity sessions tells"):
            control.join(acceptor, session)
        if detach:
            _show_begun(control, session, node, as_json=as_json or lines)
            return
        _show(control, session, node, as_json=as_json, lines=lines)


def run_everywhere(path: Path, nodes: Path, *, rounds: int | None, as_json: bool, lines: bool = False) -> None:
    """Runs a session over the control ports of all its nodes, and shows the result."""
    from comity.cli.several_nodes import connected
    from comity.node.sessions.script import parse_script

    script = parse_script(read_script(path, rounds), str(path))
    script.require_no_parties()
    with connected(nodes) as clients, SessionProgress(quiet=as_json, bytes_and_left=True, lines=lines) as progress:
        with _interruptible("the session goes on at the nodes; comity sessions --nodes shows it"):
            result, summary = drive(script, clients, progress)
        result["processes"] = [client.describe().pid for client in clients.values()]
    if as_json or lines:
        show_json(result)
    else:
        show_result(result, summary)


def drive(
    script: Script, clients: Mapping[str, ControlClient], progress: SessionProgress
) -> tuple[dict[str, Any], Summary]:
    """Runs a session at nodes of which every one is in our hands; returns its result and what of it people compare.

    Args:
        script: The session.
        clients: Connections to the nodes, by party.
        progress: Shows it.

    Raises:
        InvalidValue: The nodes are not those of the session.
        ComityError: What the session failed with.
    """
    from comity.node.sessions.script import session_text

    acceptors = script.session.acceptors
    initiators = [party for party in clients if party not in acceptors]
    definition = protocol(script.session.protocol)
    joined = definition.topology.is_joined
    if not set(acceptors) <= set(clients) or not initiators or (not joined and len(initiators) > 1):
        raise InvalidValue(
            "the nodes are not those of the session",
            expected=f"{', '.join(acceptors)}, and {'each that joins' if joined else 'one that asks'}",
            received=", ".join(clients),
            action="name each party's node once",
        )
    if not joined:
        control = clients[initiators[0]]
        return follow(control, control.run(session_text(script)), progress)
    session = clients[acceptors[0]].open(session_text(script))
    for party in initiators:
        clients[party].join(acceptors[0], session)
    for party in initiators:
        # Who is refused joins never, and the others would wait for them.
        _begun(clients[party], session)
    result, summary = follow(clients[acceptors[0]], session, progress)
    quiet = SessionProgress(quiet=True)
    of = {party: follow(clients[party], session, quiet)[0] for party in sorted(initiators)}
    merge = definition.load().merge
    metrics = (
        result["metrics"]
        if merge is None
        else merge(result["metrics"], {party: each["metrics"] for party, each in of.items()})
    )
    digests = b"".join(bytes.fromhex(each["digest"]) for each in of.values())
    return {**result, "metrics": metrics, "digest": blake3(digests).hexdigest()}, summary


def watch_session(session: str, *, node: NodeChoice, as_json: bool, lines: bool = False) -> None:
    """Follows a session to its end and shows the result."""
    with node.connect() as control:
        if not session:
            session = latest(control)
        _show(control, session, node, as_json=as_json, lines=lines)


def _show_begun(control: ControlClient, session: str, node: NodeChoice, *, as_json: bool) -> None:
    """Waits until a session is agreed on, or waits for something, and says which.

    Raises:
        ComityError: It was refused, or could not begin.
    """
    first = _begun(control, session)
    waits = first.kind == "waiting"
    if as_json:
        begun: dict[str, Any] = {"session": session, "node": node.name, "state": "waiting" if waits else "running"}
        show_json({**begun, "waiting": dict(first.fields)} if waits else begun)
        return
    how = waiting_line(first.fields) if waits else "is on"
    print(f"session {session} {how}; comity watch {session}{node.option} follows it")  # noqa: T201


def _begun(control: ControlClient, session: str) -> Event:
    """The event that tells how a session began: it is on, or waits for something.

    Raises:
        ComityError: It was refused, or could not begin.
    """
    first = next((event for event in control.watch(session) if event.kind in _BEGUN), None)
    if first is None:
        raise NodeDraining("the node stopped", action="start it again, and look with comity sessions")
    if first.kind not in {"session-started", "waiting"}:
        raise_failure(first)
    return first


def _show(control: ControlClient, session: str, node: NodeChoice, *, as_json: bool, lines: bool) -> None:
    back = f"session {session} goes on at the node; come back with: comity watch {session}{node.option}"
    with SessionProgress(quiet=as_json, bytes_and_left=True, lines=lines) as progress, _interruptible(back):
        result, summary = follow(control, session, progress, node.option)
        description = control.describe()
        result["processes"] = [description.pid]
        if "digest" in result:
            result["folder"] = str(Path(description.state_dir) / "sessions" / session)
    if as_json or lines:
        show_json(result)
        return
    if "digest" in result:
        show_result(result, summary)
        show_folder(result, Path(description.state_dir) / "sessions" / session)
    else:
        print(f"session {session} is over")  # noqa: T201


@contextmanager
def _interruptible(back: str) -> Iterator[None]:
    """Says, when somebody interrupts, what goes on without them and how to come back."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\n{back}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def summary_of(finished: Event) -> Summary:
    """What people compare, as the event with which a session ends well says it."""
    fields: Any = finished.fields
    return Summary.from_json(fields["summary"])


def follow(
    control: ControlClient, session: str, progress: SessionProgress, option: str = ""
) -> tuple[dict[str, Any], Summary]:
    """Shows a session until it ends; returns its result and what of it people compare.

    Args:
        control: Its node.
        session: Its identifier.
        progress: Shows it.
        option: What a command takes to reach the same node.

    Raises:
        ComityError: What the session failed with.
    """
    progress.session = session
    for event in control.watch(session):
        progress.observe(event)
        fields: Any = event.fields
        match event.kind:
            case "session-failed" | "session-cancelled" | "session-refused":
                raise_failure(event)
            case "session-stopped":
                progress.say(f"session {session} has stopped; comity resume {session}{option} goes on with it")
                raise_failure(event)
            case "session-finished":
                return dict(fields["result"]), summary_of(event)
    raise NodeDraining(
        "the node stopped",
        action=f"start it again: it goes on by itself, and comity watch {session}{option} follows it",
    )
