"""Brings every bundle to the other party at once, and its answer back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from comity.errors import RoundOutOfOrder
from comity.session.hosting import HostedSession
from comity.session.receipts import Signer
from comity.session.seat import Seat
from comity.session.worker import AtOnce, Steppable
from comity.transport.bindings.offline import OfflineChannel, OfflineRecord, answer, take
from comity.transport.calls import Method, Service
from comity.transport.parcels import AnswerDue, Label, Shipment, bundled, opened_parcel, write_parcel


class Courier(OfflineChannel):
    """A channel on which no call waits for a journey.

    Args:
        service: The protocol's calls.
        caller: The context of the party that calls.
        called: The context of the other.
        role: Its role.
        folder: Where bundles lie.
        sign: A party's key.
    """

    def __init__(
        self, service: Service, caller: Seat, called: Seat, role: Steppable, folder: Path, sign: Callable[[str], Signer]
    ) -> None:
        super().__init__(caller, OfflineRecord(folder / "caller"))
        self._service = service
        self._parties = caller.own.party, called.own.party
        self._hosted = HostedSession(called, role, AtOnce(role))
        self._theirs = OfflineRecord(folder / "called")
        self._folder = folder
        self._sign = sign
        self._back = ExitStack()
        self._offered: Collection[bytes] = ()

    def call(self, method: Method, request: Message) -> Message:
        if not method.is_answered:
            said = super().call(method, request)
            if getattr(method.call, "delivers", False):
                self._calls.clear()
                round = method.request_rule.round_of(request)
                self._carry(Shipment(round, [bundled(method.path, request)], held=self._offered))
            return said
        self.answer = None
        with pytest.raises(AnswerDue) as due:
            super().call(method, request)
        self._offered = due.value.shipment.held
        self._carry(due.value.shipment)
        self._has_arrived = False
        try:
            return super().call(method, request)
        except AnswerDue as error:
            raise RoundOutOfOrder("the other party has gone on") from error

    def follow(self, method: Method, request: Callable[[], Message]) -> Iterator[Message | None]:
        # Whoever comes back reads the answer anew.
        self._answer()
        return super().follow(method, request)

    def close(self) -> None:
        self._back.close()

    def _carry(self, shipment: Shipment) -> None:
        with self._written("there", 0, shipment) as parcel:
            take(self._service, self._hosted, parcel, self._theirs)
        self._answer()

    def _answer(self) -> None:
        shipment = answer(self._service, self._hosted, self._theirs)
        if shipment is not None:
            self._back.close()
            self.answer = self._back.enter_context(self._written("back", 1, shipment))

    def _written(self, name: str, by: int, shipment: Shipment) -> Any:
        path, contract = self._folder / f"{name}.parcel", self._hosted.contract
        sender, receiver = self._parties[by], self._parties[1 - by]
        label = Label(receiver, contract.session, contract.hash)
        write_parcel(path, label, shipment, self._sign(sender), sender)
        return opened_parcel(path, lambda party: self._sign(party).public_key)
