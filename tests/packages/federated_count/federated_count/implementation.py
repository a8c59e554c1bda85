"""The federated count's task and calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comity.contract import Contract
from comity.data import Splits
from comity.errors import TaskMismatch
from comity.ledger.receipts import SignedStatement
from comity.protocol.implementation import Implementation, Resources, TaskBuilder
from comity.session.contexts import PeerContext
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import Unary
from comity.transport.service import Service
from federated_count.definition import FederatedCountTerms
from federated_count.roles import Analyst, Site
from federated_count.v1 import federated_count_pb2 as pb

ADD = Unary(method="Add", handle=lambda site, analyst, *said: site.add(*said))
ACKNOWLEDGE = Unary(method="Acknowledge", handle=lambda site, analyst, round: None, delivers=True)


class SitePort(PeerPort):
    """Implements `Adding`."""

    def __init__(self, context: PeerContext, channel: Channel) -> None:
        super().__init__(SERVICE, context, channel)

    def add(self, round: int, count: int, request: SignedStatement) -> tuple[int, SignedStatement]:
        """See `Adding.add`."""
        answer: tuple[int, SignedStatement] = self._call(ADD, round, count, request)
        return answer

    def acknowledge(self, round: int) -> None:
        """See `Adding.acknowledge`."""
        self._call(ACKNOWLEDGE, round)


@dataclass(frozen=True)
class ClassCounts:
    """How many samples of each class a party has.

    Attributes:
        terms: What is counted.
        counts: By class.
    """

    terms: FederatedCountTerms
    counts: list[int]

    @property
    def samples(self) -> int:
        """All of its samples."""
        return sum(self.counts)

    def count(self, round: int) -> int:
        """Samples of the class that a round is about; there are none of one that there is not."""
        label = self.terms.first_class + round - 1
        return self.counts[label] if label < len(self.counts) else 0


class CountTask(TaskBuilder):
    """See `TaskBuilder`."""

    def build(self, contract: Contract, resources: Resources) -> ClassCounts:
        """See `TaskBuilder.build`."""
        data, terms = resources.data, contract.terms
        if not isinstance(data, Splits) or not isinstance(terms, FederatedCountTerms):
            raise TaskMismatch("only samples can be counted", expected="[data] with samples", received=resources.party)
        return ClassCounts(terms, data.train.labels.bincount(minlength=data.train.classes).tolist())


def _initiator(contexts: Any, ports: Any) -> Analyst:
    return Analyst(contexts[0], ports[0])


def _acceptor(session: Any, contexts: Any) -> Site:
    return Site(contexts[0])


SERVICE = Service(
    pb.DESCRIPTOR.services_by_name["FederatedCount"],
    (ADD, ACKNOWLEDGE),
    client=SitePort,
    terms=pb.FederatedCountTerms,
)

IMPLEMENTATION = Implementation(service=SERVICE, task=CountTask(), initiator=_initiator, acceptor=_acceptor)
