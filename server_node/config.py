"""What a server's configuration must hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comity.node.config import NodeConfig


class ServerConfig(NodeConfig):
    """A server's configuration: it listens, and opens no connection. It needs no data; what it has, it tests on.

    Attributes:
        listen: Where clients reach it, `host:port`; port 0 takes any free one.
    """

    listen: Annotated[str, Field(min_length=3, examples=["0.0.0.0:5500"])]
