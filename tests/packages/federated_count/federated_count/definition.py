"""The federated count, before any of its code is needed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comity.contract import Terms
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.presentation import Column, Presentation, Summary, View
from comity.protocol.topology import Topology


class FederatedCountTerms(Terms):
    """The protocol's part of a contract.

    Attributes:
        first_class: The class that is counted in the first round.
    """

    first_class: Annotated[int, Field(ge=0, lt=2**32)] = 0


_COLUMNS = (Column("count", "own samples", "integer"), Column("sum", "samples of both", "integer"))

PROTOCOL = ProtocolDefinition(
    name="federated_count",
    version=1,
    initiator="analyst",
    acceptor="site",
    topology=Topology.PAIR,
    egress=("contract", "count"),
    models=(),
    trains=frozenset(),
    terms=FederatedCountTerms,
    presentation=Presentation(
        View({"analyst": _COLUMNS, "site": _COLUMNS}, Summary("samples", (Column("sum", "of both", "integer"),), "sum"))
    ),
    implementation="federated_count.implementation:IMPLEMENTATION",
)
