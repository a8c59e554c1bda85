"""`comity votes`."""
# ruff: noqa: PLC0415 - listing verbs needs no torch

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

_SESSION = typer.Argument(help="The session's identifier.")
_CONFIG = typer.Option(help="The node's TOML file, which says where it listens for this.")
_JSON = typer.Option("--json", help="Print one JSON object.")


def release(
    session: Annotated[str, _SESSION],
    *,
    config: Annotated[Path, _CONFIG] = Path("node.toml"),
    json_output: Annotated[bool, _JSON] = False,
) -> None:
    """Lets the votes of a session leave that wait for a review.

    Example: `comity votes release s-0123`
    """
    from teacher_votes.services import REVIEW
    from teacher_votes.v1 import review_pb2 as pb

    call = (f"/{REVIEW}/Release", pb.ReleaseRequest(session=session), pb.ReleaseReply)
    _tell(config, "review", call, "the votes of round {} leave", "no votes wait", as_json=json_output)


def learn(
    session: Annotated[str, _SESSION],
    *,
    config: Annotated[Path, _CONFIG] = Path("node.toml"),
    json_output: Annotated[bool, _JSON] = False,
) -> None:
    """Lets the student of a session learn the labels that wait.

    Example: `comity votes learn s-0123`
    """
    from teacher_votes.services import CONFIRM
    from teacher_votes.v1 import review_pb2 as pb

    call = (f"/{CONFIRM}/Learn", pb.LearnRequest(session=session), pb.LearnReply)
    _tell(config, "confirm", call, "the labels of round {} are learned", "no labels wait", as_json=json_output)


def _tell(config: Path, service: str, call: tuple[str, Any, Any], done: str, none: str, *, as_json: bool) -> None:
    from comity.node.config import NodeConfig, load_config
    from comity.transport.peer_connection import PeerConnection
    from comity.transport.retry import RetryPolicy
    from teacher_votes.definition import PROTOCOL

    loaded = load_config(NodeConfig, config)
    address, (path, request, answer) = getattr(loaded.settings_of(PROTOCOL), service).listen, call
    with PeerConnection(loaded.identity, loaded.party, address, RetryPolicy(call_s=10.0, retry_s=0.0)) as connection:
        reply = connection.call(connection.unary(path, answer), request)
    found = done.format(reply.round) if reply.round else none
    sys.stdout.write(f"{json.dumps({'session': request.session, 'round': reply.round}) if as_json else found}\n")
