"""How messages and blobs reach the other party."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from google.protobuf.message import Message

from comity.ledger.ledger import Units
from comity.tensors import Blob
from comity.transport.bindings.conversation import Conversation
from comity.transport.methods import Method


class Channel(Protocol):
    """A way to one party; what passes it was let out by the gate.

    Attributes:
        waits: Whether a call takes time in which other work can be done.
        arrives: Whether what was sent is there when the call returns.
        attaches: Whether small blobs travel with the messages that name them.
    """

    waits: bool
    arrives: bool
    attaches: bool

    def call(self, method: Method, request: Message) -> Message:
        """Makes a call; returns its answer."""

    def follow(self, method: Method, request: Callable[[], Message]) -> Iterator[Message | None]:
        """Follows a stream to its end.

        Args:
            method: The method.
            request: The request with which to begin, or to go on after a cut.

        Yields:
            Messages; None where there is none until others have had their turn.
        """

    def converse(self, method: Method) -> Conversation | None:
        """Begins a stream in both directions; None where each of its calls is made by itself, by `follow`."""

    def put(self, blob: Blob, kind: str, units: Units, before: Callable[[int], None], base: Blob | None) -> None:
        """Uploads what the other party lacks of a blob.

        Args:
            blob: The blob.
            kind: What it is.
            units: What it belongs to.
            before: Called, with the length of what is sent, before any byte leaves; raises if it may not.
            base: A blob that the other party holds: what changed since it is sent, where that is shorter.
        """

    def get(
        self,
        digest: bytes,
        size: int,
        verify: Callable[[Blob], None],
        *,
        after: Callable[[int], None],
        base: Blob | None,
    ) -> Blob:
        """Downloads a blob.

        Args:
            digest: Its digest.
            size: Its length.
            verify: Checks the whole blob and raises if it does not fit.
            after: Called, with the length of what came, once the blob is whole and verified.
            base: A blob that the other party published: what changed since it may come instead.
        """

    def at_close(self, end: Callable[[], None]) -> None:
        """Has something called when the channel is closed."""
