"""`comity votes`."""
# ruff: noqa: PLC0415 - listing verbs needs no torch

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def release(
    session: Annotated[str, typer.Argument(help="The session's identifier.")],
    *,
    config: Annotated[Path, typer.Option(help="The teacher's TOML file, which says where it takes reviews.")] = Path(
        "node.toml"
    ),
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Lets the votes of a session leave that wait for a review.

    Example: `comity votes release s-0123`
    """
    from comity.node.config import NodeConfig, load_config
    from comity.transport.peer_connection import PeerConnection
    from comity.transport.retry import RetryPolicy
    from teacher_votes.definition import PROTOCOL
    from teacher_votes.services import REVIEW
    from teacher_votes.settings import Settings
    from teacher_votes.v1 import review_pb2 as pb

    loaded = load_config(NodeConfig, config)
    settings = loaded.settings_of(PROTOCOL)
    address = settings.review.listen if isinstance(settings, Settings) else ""
    with PeerConnection(loaded.identity, loaded.party, address, RetryPolicy(call_s=10.0, retry_s=0.0)) as connection:
        reply = connection.call(
            connection.unary(f"/{REVIEW}/Release", pb.ReleaseReply), pb.ReleaseRequest(session=session)
        )
    found = f"the votes of round {reply.round} leave" if reply.round else "no votes wait"
    sys.stdout.write(f"{json.dumps({'session': session, 'round': reply.round}) if json_output else found}\n")
