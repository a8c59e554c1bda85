"""What a client's configuration must hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comity.node.config import NodeConfig, OwnData
from comity.node.config_sections import PeerConfig


class ClientConfig(NodeConfig):
    """A client's configuration: it opens connections and listens to its own operator alone.

    Attributes:
        data: Its data, which stay where they are.
        peers: Servers whose sessions it joins, by name; at least one.
    """

    data: OwnData = Field(examples=[{"source": "imagefolder:scans"}])
    peers: Annotated[
        dict[str, PeerConfig],
        Field(min_length=1, examples=[{"consortium": {"address": "consortium.example.org:5500"}}]),
    ]
