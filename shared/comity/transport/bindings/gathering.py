"""The calls of protocols in which one party gathers, each once: those of the messages in gathering.proto."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic

from comity.contract import Release
from comity.errors import MalformedMessage
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext
from comity.session.gathering.messages import Answer, Details, News
from comity.tensors import Blob
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.client import PeerPort
from comity.transport.calls import BlobField, Call, Service, Unary, Watch


@dataclass(frozen=True)
class GatheringCalls:
    """The calls of such a service.

    Attributes:
        submits: Egress kind of what clients submit.
        answers: Egress kind of what they get.
        field: The field of the service's news that has a client's answer, a message with the field `round`.
    """

    submits: str
    answers: str
    field: str

    @property
    def watch(self) -> Watch:
        """`WatchRounds`."""

        def resume(request: Any, news: Any) -> None:
            if news.HasField(self.field):
                request.after = max(request.after, getattr(news, self.field).round)

        return Watch(
            method="WatchRounds",
            handle=lambda role, client, after: role.follow(client.peer.party, after),
            resume=resume,
        )

    @property
    def submit(self) -> Unary:
        """`Submit`."""
        return Unary(
            method="Submit",
            handle=lambda role, client, round, blob, release: role.submit(client.peer.party, round, blob, release),
            uploads=(BlobField(self.submits, "blob"),),
        )

    @property
    def sit_out(self) -> Unary:
        """`SitOut`."""
        return Unary(method="SitOut", handle=lambda role, client, round: role.sit_out(client.peer.party, round))

    @property
    def confirm(self) -> Unary:
        """`Confirm`."""
        return Unary(
            method="Confirm",
            handle=lambda role, client, round, request: role.confirm(client.peer.party, round, request),
        )

    @property
    def acknowledge(self) -> Unary:
        """`Acknowledge`."""
        return Unary(
            method="Acknowledge",
            handle=lambda role, client, round, signed: role.acknowledge(client.peer.party, round, signed),
            delivers=True,
        )

    @property
    def all(self) -> tuple[Call, ...]:
        """All of them."""
        return self.watch, self.submit, self.sit_out, self.confirm, self.acknowledge


class GatheringPort(PeerPort, Generic[Details]):
    """Implements `Gathering`, but for what a protocol checks of an answer.

    Args:
        service: The protocol's.
        calls: Those of it that gather.
        context: The client's context opposite the party that gathers.
        channel: The way there.
    """

    def __init__(self, service: Service, calls: GatheringCalls, context: PeerContext, channel: Channel) -> None:
        super().__init__(service, context, channel)
        self._calls = calls

    @abstractmethod
    def _require_fitting(self, answer: Answer[Details]) -> None:
        """Checks an answer, before any of it is fetched.

        Raises:
            PeerMessageError: It does not fit.
        """

    @abstractmethod
    def _size_of(self, details: Details) -> int:
        """Length of what an answer is about, in bytes."""

    @abstractmethod
    def _verify(self, blob: Blob) -> None:
        """Checks what an answer is about, as it was fetched.

        Raises:
            PeerMessageError: It does not fit.
        """

    def news(self, after: int) -> Iterator[News[Details] | None]:
        """See `Gathering.news`."""
        done = after
        for news in self._watch(self._calls.watch, after):
            if news is not None and news.answer is not None:
                self._require_fitting(news.answer)
                done = news.round
            yield news
            if news is not None and news.kind == "over":
                return
        raise MalformedMessage(
            f"the news of {self._peer.peer.party} ended before the session",
            expected="an end",
            received=f"nothing after round {done}",
            action="ask its operator what happened",
        )

    def submit(self, round: int, blob: bytes, release: Release) -> None:
        """See `Gathering.submit`."""
        self._call(self._calls.submit, round, blob, release)

    def sit_out(self, round: int) -> None:
        """See `Gathering.sit_out`."""
        self._call(self._calls.sit_out, round)

    def confirm(self, round: int, request: SignedStatement) -> SignedStatement:
        """See `Gathering.confirm`."""
        signed: SignedStatement = self._call(self._calls.confirm, round, request)
        return signed

    def fetch(self, answer: Answer[Details]) -> Blob:
        """See `Gathering.fetch`."""
        details = answer.details
        units = in_round(details.round)
        return self._fetch(details.blob, self._size_of(details), self._calls.answers, units, self._verify)

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Gathering.acknowledge`."""
        self._call(self._calls.acknowledge, round, acknowledgement)
