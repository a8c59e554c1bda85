"""What a provider's configuration must hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comity.node.config import NodeConfig, OwnData


class ProviderConfig(NodeConfig):
    """A provider's configuration: it listens, and opens no connection.

    Attributes:
        data: Its data, which stay where they are.
        listen: Where learners reach it, `host:port`; port 0 takes any free one.
    """

    data: OwnData = Field(examples=[{"source": "imagefolder:scans"}])
    listen: Annotated[str, Field(min_length=3, examples=["0.0.0.0:5500"])]
