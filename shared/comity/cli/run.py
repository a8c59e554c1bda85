"""`comity run` and `comity watch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from comity.cli.files import read_script
from comity.cli.nodes import NodeChoice
from comity.cli.progress import SessionProgress
from comity.cli.tables import show_json, show_result
from comity.errors import InvalidValue, NodeDraining
from comity.node.control_client import ControlClient, raise_failure
from comity.session.events import Column, Summary

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run_script(path: Path, *, node: NodeChoice, detach: bool, as_json: bool) -> None:
    """Starts a session at a node, follows it and shows the result."""
    text = read_script(path)
    with node.connect() as control:
        with _interruptible("whether the session began, comity sessions tells"):
            session = control.run(text)
        if detach:
            started = {"session": session, "node": node.name}
            show_json(started) if as_json else print(f"session {session} runs at {node.name}")  # noqa: T201
            return
        _show(control, session, node, as_json=as_json)


def watch_session(session: str, *, node: NodeChoice, as_json: bool) -> None:
    """Follows a session to its end and shows the result."""
    with node.connect() as control:
        if not session:
            session = _latest(control)
        _show(control, session, node, as_json=as_json)


def _show(control: ControlClient, session: str, node: NodeChoice, *, as_json: bool) -> None:
    back = f"session {session} goes on at {node.name}; come back with: comity watch {session}{node.option}"
    with SessionProgress(quiet=as_json, bytes_and_left=True) as progress, _interruptible(back):
        result, summary = follow(control, session, progress)
        description = control.describe()
        result["processes"] = [description.pid]
    if as_json:
        show_json(result)
        return
    if "digest" in result:
        show_result(result, summary)
        print(f"the model is in {Path(description.state_dir) / 'sessions' / session}")  # noqa: T201
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


def _latest(control: ControlClient) -> str:
    """The session that a node entered last."""
    sessions = control.sessions()
    if not sessions:
        raise InvalidValue("this node has no session yet", action="comity run SCRIPT begins one")
    return sessions[-1].session


def follow(control: ControlClient, session: str, progress: SessionProgress) -> tuple[dict[str, Any], Summary]:
    """Shows a session until it ends; returns its result and what of it people compare.

    Raises:
        ComityError: What the session failed with.
    """
    for event in control.watch(session):
        progress.observe(event)
        fields: Any = event.fields
        match event.kind:
            case "session-failed" | "session-cancelled":
                raise_failure(event)
            case "session-stopped":
                progress.say(f"session {session} has stopped; comity resume {session} goes on with it")
                raise_failure(event)
            case "session-finished":
                summary = fields["summary"]
                columns = tuple(Column(**each) for each in summary["columns"])
                return dict(fields["result"]), Summary(summary["title"], columns, summary["outcome"])
    raise NodeDraining(
        "the node stopped", action=f"start it again: it goes on by itself, and comity watch {session} follows it"
    )
