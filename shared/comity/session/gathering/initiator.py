"""The asking role of one of many: makes its blob of each round, hands it in, and takes the answer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic

from comity import faults
from comity.contract import Json, Release
from comity.errors import MalformedMessage, RoundOutOfOrder, UnexpectedBlob, UnknownBlob
from comity.ledger.ledger import in_round
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.gathering.messages import Answer, Details, Gathering
from comity.session.waiting import OTHERS
from comity.tensors import Blob


class GatheringInitiator(ABC, Generic[Details]):
    """What a client's role is derived from. Its state follows from its journal.

    Records: `contributed` with what was made for a round, `missed`, `finished` with what a round came to, and `over`.

    A role's own state is made before `__init__` of this class, which replays the journal.

    Args:
        context: This party's place opposite the one that gathers.
        port: That one, in process or over the network.
        submits: Egress kind of what it submits.
    """

    def __init__(self, context: PeerContext, port: Gathering[Details], submits: str) -> None:
        self._context = context
        self._port = port
        self._submits = submits
        self._done = self._confirmed = 0
        self._over = False
        # None where nothing of it was left to send.
        self._contributed: dict[int, bytes | None] = {}
        self._rounds: list[dict[str, Json]] = []
        self._began = time.monotonic()
        for record in context.journal.records():
            fields: Any = record.fields
            match record.kind:
                case "contributed":
                    self._take_note(record.round, fields)
                case "missed":
                    self._done = record.round
                case "over":
                    self._over = True
                case "finished":
                    self._finish(record.round, fields)
                case _:
                    self._replay(record.kind, record.round, fields)

    @abstractmethod
    def _make(self, round: int) -> dict[str, Json]:
        """Makes what is submitted in a round, and makes it durable.

        Returns:
            What is kept of it; `submitted` is its digest, hexadecimal, or None where nothing is left to send.
        """

    @abstractmethod
    def _release(self) -> Release:
        """What stands behind what is submitted."""

    @abstractmethod
    def _collected(self, answer: Answer[Details], blob: Blob) -> dict[str, Json]:
        """Takes what a round came to.

        Returns:
            What is kept of it.
        """

    @abstractmethod
    def _kept(self) -> set[bytes]:
        """Digests of the blobs that are needed from here on."""

    def _note(self, fields: Mapping[str, Any]) -> None:
        """Takes note of what was made for a round; nothing, if a role says nothing else."""

    def _finished(self, fields: Mapping[str, Any]) -> None:
        """Takes note of what a round came to; nothing, if a role says nothing else."""

    def _replay(self, kind: str, round: int, fields: Mapping[str, Any]) -> None:
        """Does again what another record of the role's own says; there is none, if a role says nothing else."""

    def work(self) -> Iterator[None]:
        """Takes part in what is left of the rounds; yields while others have their turn."""
        if self._over:
            # The other party may have forgotten the session since.
            return
        peer = self._context.peer.party
        waits = not self._done and not self._contributed
        if waits:
            self._context.waits.begin(OTHERS, peer)
        for news in self._port.news(self._done):
            if news is None:
                yield
                continue
            if waits:
                self._context.waits.end(OTHERS, peer)
                waits = False
            if news.kind == "over":
                self._context.journal.append("over", self._done)
                return
            if news.round > self._context.contract.rounds:
                raise MalformedMessage(
                    f"{self._context.peer.party} speaks of a round that was not agreed on",
                    expected=f"at most {self._context.contract.rounds}",
                    received=news.round,
                    action="ask its operator what happened",
                )
            elif news.round > max(self._done, self._confirmed) and news.kind == "opened":
                self._contribute(news.round)
            elif news.round > self._done and news.answer is not None:
                self._collect(news.answer)

    def _contribute(self, round: int) -> None:
        """Makes and submits; what was made before a restart or a cut is submitted again."""
        self._began = time.monotonic()
        try:
            if round not in self._contributed:
                fields = self._make(round)
                self._context.journal.append("contributed", round, **fields)
                self._take_note(round, fields)
            blob = self._contributed[round]
            if blob is None:
                self._port.sit_out(round)
                self._miss(round, f"nothing of the {self._submits} of round {round} was left to send")
                return
            self._port.submit(round, blob, self._release())
        except (RoundOutOfOrder, UnexpectedBlob) as error:
            self._miss(round, str(error))
            return
        faults.point("offering")
        self._confirm(round, blob)
        self._context.observe(Event(f"{self._submits}-submitted", round, {}))
        awaited = f"{self._context.peer.party} to settle round {round}, once the other parties have handed in theirs"
        self._context.observe(Event("round-awaited", round, {"waits_for": awaited}))

    def _miss(self, round: int, why: str) -> None:
        self._context.journal.append("missed", round)
        self._contributed.clear()
        self._done = round
        self._context.observe(Event("round-missed", round, {"what": why}))

    def _confirm(self, round: int, blob: bytes) -> None:
        """Signs for what was submitted, and takes the other party's receipt."""
        receipt = self._port.confirm(round, self._context.receipt_book.sign("request", in_round(round), blob))
        self._context.receipt_book.accept(receipt, "receipt", in_round(round), blob)
        self._confirmed = round

    def _collect(self, answer: Answer[Details]) -> None:
        """Takes an answer, and checks the other party's statement against it."""
        context, details = self._context, answer.details
        submitted = self._contributed.get(details.round)
        if submitted is None:
            raise MalformedMessage(
                f"{context.peer.party} answers in round {details.round}, in which this client took no part",
                expected=", ".join(map(str, self._contributed)) or "none",
                received=details.round,
                action="ask its operator what happened",
            )
        context.receipt_book.accept(
            answer.statement, "statement", in_round(details.round), details.subject, details.content
        )
        if self._confirmed != details.round:
            # The round was settled before this client could sign; what it is due is given out when it has.
            self._confirm(details.round, submitted)
        try:
            blob = self._port.fetch(answer)
        except UnknownBlob as error:
            # It was dropped: the client goes on with the model that it has.
            self._miss(details.round, str(error))
            return
        fields = self._collected(answer, blob)
        fields["seconds"] = time.monotonic() - self._began
        acknowledgement = context.receipt_book.sign("acknowledgement", in_round(details.round), details.subject)
        self._port.acknowledge(details.round, acknowledgement)
        context.journal.append("finished", details.round, **fields)
        self._finish(details.round, fields)
        context.blobs.keep(self._kept())
        context.observe(Event("round-finished", details.round, fields))

    def _take_note(self, round: int, fields: Mapping[str, Any]) -> None:
        self._contributed[round] = None if fields["submitted"] is None else bytes.fromhex(fields["submitted"])
        self._note(fields)

    def _finish(self, round: int, fields: Mapping[str, Any]) -> None:
        self._rounds.append({**fields, "round": round})
        self._contributed.clear()
        self._done = round
        self._finished(fields)
