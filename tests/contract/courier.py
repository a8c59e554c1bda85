"""Brings every bundle to the other party at once, and its answer back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from comity.errors import RoundOutOfOrder
from comity.ledger.receipts import Signer
from comity.session.contexts import PeerContext
from comity.session.session_registry import AcceptedSession
from comity.session.worker import InlineWorker, Steppable
from comity.transport.bindings.offline import OfflineChannel, OfflineRecord, answer, take
from comity.transport.bundles import AnswerDue, Bundle, Label, bundled, opened_bundle, write_bundle
from comity.transport.methods import Method
from comity.transport.service import Service


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
        self,
        service: Service,
        caller: PeerContext,
        called: PeerContext,
        role: Steppable,
        folder: Path,
        sign: Callable[[str], Signer],
    ) -> None:
        super().__init__(caller, OfflineRecord(folder / "caller"))
        self._service = service
        self._parties = caller.own.party, called.own.party
        self._hosted = AcceptedSession(called, role, InlineWorker(role))
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
                round = method.request_rule.units_of(request).first
                self._carry(Bundle(round, [bundled(method.path, request)], held=self._offered))
            return said
        self.answer = None
        with pytest.raises(AnswerDue) as due:
            super().call(method, request)
        self._offered = due.value.bundle.held
        self._carry(due.value.bundle)
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

    def _carry(self, bundle: Bundle) -> None:
        with self._written("there", 0, bundle) as brought:
            take(self._service, self._hosted, brought, self._theirs)
        self._answer()

    def _answer(self) -> None:
        bundle = answer(self._service, self._hosted, self._theirs)
        if bundle is not None:
            self._back.close()
            self.answer = self._back.enter_context(self._written("back", 1, bundle))

    def _written(self, name: str, by: int, bundle: Bundle) -> Any:
        path, contract = self._folder / f"{name}.bundle", self._hosted.contract
        sender, receiver = self._parties[by], self._parties[1 - by]
        label = Label(receiver, contract.session, contract.hash)
        write_bundle(path, label, bundle, self._sign(sender), sender)
        return opened_bundle(path, lambda party: self._sign(party).public_key)
