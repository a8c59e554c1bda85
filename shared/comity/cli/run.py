"""`comity run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from comity.cli.files import control_url, read_script
from comity.cli.progress import SessionProgress
from comity.cli.tables import show_json, show_result
from comity.errors import SessionFailed
from comity.node.control_client import ControlClient, raise_failure


def run_script(path: Path, *, node: str, detach: bool, as_json: bool) -> None:
    """Starts a session at a node, follows it and shows the result."""
    text = read_script(path)
    with ControlClient(control_url(node)) as control:
        session = control.run(text)
        if detach:
            started = {"session": session, "node": node}
            show_json(started) if as_json else print(f"session {session} runs at {node}")  # noqa: T201
            return
        with SessionProgress(quiet=as_json) as progress:
            try:
                result = follow(control, session, progress)
            except KeyboardInterrupt:
                progress.say(f"session {session} goes on at {node}")
                raise
        description = control.describe()
        result["processes"] = [description.pid]
        progress.say(f"the model is in {Path(description.state_dir) / 'sessions' / session}")
    (show_json if as_json else show_result)(result)


def follow(control: ControlClient, session: str, progress: SessionProgress) -> dict[str, Any]:
    """Shows a session until it ends; returns its result.

    Raises:
        ComityError: What the session failed with.
    """
    for event in control.watch(session):
        progress.observe(event)
        if event.kind == "session-failed":
            raise_failure(event)
        if event.kind == "session-finished":
            return dict(cast(Mapping[str, Any], event.fields["result"]))
    raise SessionFailed("the node ended the session without a result", action="look at its log")
