"""Several nodes that one operator drives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from comity.errors import InvalidValue, MissingFile, PeerUnreachable
from comity.node.control_client import ControlClient
from comity.node.operating import NodeChoice
from comity.node.validation import read_toml, validated


class NodesFile(BaseModel):
    """Several nodes, as a TOML file names them.

    Attributes:
        operator: Folder of the operator's key and certificate; relative to the file.
        nodes: For each party its control port, `HOST:PORT`, or its folder.
    """

    model_config = ConfigDict(extra="forbid")

    operator: str = "."
    nodes: dict[str, str]


_LOOK_S = 0.5
"""How often it is looked whether a node is there, in seconds."""


@contextmanager
def connected(path: Path, wait_s: float = 0.0) -> Iterator[dict[str, ControlClient]]:
    """Connections to all nodes of a file, by party.

    Args:
        path: The file.
        wait_s: How long to wait for those that are not ready yet, in seconds; 0 takes them as they are.

    Raises:
        PeerUnreachable: One is not there.
        MissingFile: The file, or what it names, is not there.
        InvalidValue: It cannot be used, or another party answers at an address.
    """
    named = validated(NodesFile, read_toml(path), str(path))
    if not named.nodes:
        raise InvalidValue(f"{path} names no node", expected='[nodes] with clinic = "10.0.0.2:5600"', received="none")
    deadline = time.monotonic() + wait_s
    with ExitStack() as stack:
        clients = {}
        for party, place in named.nodes.items():
            local = (path.parent / place).is_dir() or place.startswith("unix:")
            name = (place if place.startswith("unix:") else str(path.parent / place)) if local else f"{party}@{place}"
            choice = NodeChoice(name, operator=str(path.parent / named.operator))
            if wait_s:
                _wait_for(choice, deadline)
            clients[party] = stack.enter_context(choice.connect())
        for party, client in clients.items():
            description = client.describe()
            if description.party != party:
                raise InvalidValue(
                    f"{path}: another party answers for {party}",
                    expected=party,
                    received=description.party,
                    action="correct its place",
                )
        yield clients


def _wait_for(choice: NodeChoice, deadline: float) -> None:
    """Waits until a node is ready, or the time is over.

    Raises:
        ComityError: It is not there when the time is over, or would never be reached like this.
    """
    while True:
        is_over = time.monotonic() > deadline
        try:
            with choice.connect() as control:
                if control.serving() or is_over:
                    return
        except (MissingFile, PeerUnreachable):
            if is_over:
                raise
        time.sleep(_LOOK_S)
