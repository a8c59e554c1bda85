"""Which node a command drives."""

from __future__ import annotations

from dataclasses import dataclass

from comity.cli.files import control_url
from comity.node.control_client import ControlClient


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """A node that somebody named.

    Attributes:
        name: Its control socket, `unix:PATH`, or its `state_dir` or the folder that holds it.
        default: Whether nobody named it.
    """

    name: str
    default: bool = False

    def connect(self) -> ControlClient:
        """A connection to its operator's service.

        Raises:
            MissingFile: No node runs there.
        """
        return ControlClient(control_url(self.name))

    @property
    def option(self) -> str:
        """What to add to a command that is to reach the same node."""
        return "" if self.default else f" --node {self.name}"
