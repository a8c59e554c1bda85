"""What a provider's configuration must hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comity.node.config import NodeConfig


class ProviderConfig(NodeConfig):
    """A provider's configuration: it listens, and opens no connection.

    Attributes:
        listen: Where learners reach it, `host:port`; port 0 takes any free one.
    """

    listen: Annotated[str, Field(min_length=3, examples=["0.0.0.0:5500"])]
