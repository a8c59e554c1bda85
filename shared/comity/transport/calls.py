"""Calls, each declared once: what a slice says of them in its `calls.py`, and from which every binding is derived.

A call is a method of the protocol's service, the role's part in it, and the blobs that go along. How its messages turn into
arguments and back: see `comity.transport.methods`. What the ledger calls them stands in the .proto.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from comity.session.contexts import PeerContext
from comity.tensors import Layout
from comity.transport.blobs import digest_in
from comity.wire.v1.blobs_pb2 import BlobRef


def _layout_of_task(context: PeerContext) -> Layout:
    layout: Layout = context.task.layout
    return layout


@dataclass(frozen=True, slots=True)
class BlobField:
    """A blob that goes along with a message.

    Attributes:
        kind: Its egress kind.
        path: Path of the field that names it.
        base: Path of the field that names the blob against which it may come; empty where it comes as it is.
        layout: What its tensors are, for one that is downloaded: those of the task, if nothing is said.
    """

    kind: str
    path: str
    base: str = ""
    layout: Callable[[PeerContext], Layout] = _layout_of_task

    def reference(self, message: Message) -> BlobRef | None:
        """What names the blob; None where the message names none."""
        return _reference(message, self.path)

    def digest(self, message: Message) -> bytes | None:
        """The blob's digest; None where the message names none.

        Raises:
            MalformedMessage: It is none.
        """
        return _digest(self.reference(message))

    def base_digest(self, message: Message) -> bytes | None:
        """The digest of its base; None where the message names none.

        Raises:
            MalformedMessage: It is none.
        """
        return _digest(_reference(message, self.base)) if self.base else None


@dataclass(frozen=True, kw_only=True)
class Unary:
    """A call with one answer that is there soon.

    Attributes:
        method: Its name in the service.
        handle: What the role does, from the role, its context opposite the caller, and the request's arguments.
        uploads: Blobs that must be there before the request.
        downloads: Blobs that come with the answer, before it is given to the caller.
        delivers: Whether its caller has everything that was sent in the units that it names.
    """

    method: str
    handle: Callable[..., Any]
    uploads: tuple[BlobField, ...] = ()
    downloads: tuple[BlobField, ...] = ()
    delivers: bool = False


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A call with one answer that may take its time: no deadline of a small call applies to it.

    Attributes:
        method: Its name in the service; on the wire its answer is a stream of one.
        handle: What the role does; see `Unary`. It returns a future.
        uploads: Blobs that must be there before the request.
        downloads: Blobs that come with the answer, before it is given to the caller.
        cancels: Whether the future is cancelled when its caller goes, so that a role that has not begun with it need not; not
            where several callers may wait for one.
        metered: Whether it is one of many that are charged together: the role gets its `Wire` before its arguments, and the
            caller what both took on the wire.
    """

    method: str
    handle: Callable[..., Any]
    uploads: tuple[BlobField, ...] = ()
    downloads: tuple[BlobField, ...] = ()
    cancels: bool = False
    metered: bool = False


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Many calls, each with one answer, on one stream in both directions; answers come as they are there.

    Neither side holds a thread of the server. Of the calls of one stream `most` are under way at a time: until one is
    answered, no more is read, and the caller's transport holds it back. A caller who goes has those cancelled that the role
    has not begun with; one whose deadline has passed is given no answer, and those behind it do not notice.

    Attributes:
        method: Its name in the service, a stream in both directions.
        handle: What the role does; see `Waiting`. It returns a future.
        key: What tells the calls of one stream apart; of a request, and of its answer.
        most: Calls of one stream that are under way at a time.
        metered: See `Waiting`.
        withdraw: Makes, of a request whose caller has gone, what withdraws it: a request of the same key, of which
            `is_withdrawal` holds. None where a request on its way is not withdrawn.
        is_withdrawal: Whether a request does that. The role is not told: what it has not begun with is cancelled.
    """

    method: str
    handle: Callable[..., Any]
    key: Callable[[Any], Hashable]
    most: int = 64
    metered: bool = False
    withdraw: Callable[[Any], Message] | None = None
    is_withdrawal: Callable[[Any], bool] = lambda _: False
    uploads: tuple[BlobField, ...] = ()
    downloads: tuple[BlobField, ...] = ()
    cancels: bool = True


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A stream that a caller follows while it grows.

    Attributes:
        method: Its name in the service.
        handle: What the role does; see `Unary`. It returns the stream and the index of the first item that the caller needs.
        resume: Changes a request, once an item has come and was dealt with, into the one with which to go on after a cut.
        encode: The message of an item, from the role, the item and the one before it; by its converter where it is None.
        decode: The item of a message; by its converter where it is None.
        downloads: Blobs that come with an item, before it is given to the caller.
        offline: Arguments with which the caller would follow the stream of a round; None where it cannot be brought as a whole.
    """

    method: str
    handle: Callable[..., Any]
    resume: Callable[[Any, Any], None]
    encode: Callable[[Any, Any, Any], Message] | None = None
    decode: Callable[[Any], Any] | None = None
    downloads: tuple[BlobField, ...] = ()
    offline: Callable[[int], tuple[Any, ...]] | None = None
    uploads: tuple[BlobField, ...] = ()


Call = Unary | Waiting | Watch | Stream


def attaches(call: Call) -> bool:
    """Whether small blobs travel with a call's messages: not where messages are counted by their length, or make a stream."""
    return isinstance(call, Unary) or (isinstance(call, Waiting) and not call.metered)


def _reference(message: Any, path: str) -> BlobRef | None:
    for name in path.split("."):
        if not message.HasField(name):
            return None
        message = getattr(message, name)
    found: BlobRef = message
    return found


def _digest(reference: BlobRef | None) -> bytes | None:
    return None if reference is None else digest_in(reference)
