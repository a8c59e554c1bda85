"""`comity offline`: rounds without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from comity import faults
from comity.cli.files import read_script
from comity.cli.progress import SessionProgress
from comity.cli.run import summary_of
from comity.cli.tables import show_folder, show_json, show_result
from comity.node.config import NodeConfig, load_config
from comity.node.logs import configure_logs
from comity.node.offline import OfflineCommands, offline_commands
from comity.node.sessions.script import parse_script
from comity.report.numbers import size
from comity.session.events import Event


def export_bundle(session: str, script: Path | None, config: Path, out: Path, *, as_json: bool) -> None:
    """Does a node's part of a round and writes it to a file.

    Args:
        session: The session; empty for the one that was entered last.
        script: What describes it, if it is to begin.
        config: The node's configuration.
        out: Folder where the bundle goes.
        as_json: Print one JSON object instead of lines.
    """
    wanted = None
    if script is not None:
        wanted = parse_script(read_script(script), str(script))
        wanted.require_no_parties()
    with _commands(config, [], quiet=as_json) as commands:
        exported = commands.export(session if wanted is None else commands.begin(wanted), out)
    if as_json:
        show_json(asdict(exported) | {"file": str(exported.file)})
        return
    what = f"round {exported.round} of {exported.rounds}, {exported.blobs} blobs"
    if exported.ending:
        what = f"{exported.ending}, the last bundle"
    elif exported.round == 0:
        what = "the contract"
    print(f"session {exported.session}: {what}, {size(exported.bytes)}")  # noqa: T201
    print(f"carry {exported.file} to {exported.receiver}")  # noqa: T201


def import_bundle(path: Path, config: Path, *, as_json: bool) -> None:
    """Takes a bundle.

    Args:
        path: The file.
        config: The node's configuration.
        as_json: Print one JSON object instead of lines.
    """
    events: list[Event] = []
    with _commands(config, events, quiet=as_json) as commands:
        taken = commands.take(path)
    if as_json:
        result = None if taken.result is None else taken.result.to_json()
        show_json(asdict(taken) | {"result": result, "model": None if taken.model is None else str(taken.model)})
        return
    what = f"round {taken.round}, {taken.blobs} blobs" if taken.round else "the contract"
    print(f"session {taken.session}: {what}, from {taken.sender}")  # noqa: T201
    if taken.result is not None:
        show_result(taken.result.to_json(), summary_of(events[-1]))
        show_folder(taken.result.to_json(), taken.model)
    print("comity offline export does this side's part" if taken.export_due else "the session is over")  # noqa: T201


@contextmanager
def _commands(config: Path, events: list[Event], *, quiet: bool) -> Iterator[OfflineCommands]:
    """What a stopped node keeps, opened; shows what happens, and collects it."""
    faults.install_from_environment()
    configure_logs("error")
    with SessionProgress(quiet=quiet) as progress:

        def observe(event: Event) -> None:
            progress.observe(event)
            events.append(event)

        with offline_commands(load_config(NodeConfig, config), observe) as commands:
            yield commands
