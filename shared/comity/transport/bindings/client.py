"""The calling side of declared calls, over any channel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property, partial
from typing import Any

from google.protobuf.message import Message

from comity.errors import MalformedMessage, NodeDraining
from comity.ledger.ledger import Units
from comity.session.contexts import PeerContext
from comity.session.metering.tally import Answered
from comity.tensors import Blob
from comity.transport.bindings.channel import Channel
from comity.transport.bindings.conversation import Conversation
from comity.transport.blobs import ATTACHED, got_attached
from comity.transport.calls import BlobField, Call, Stream, Unary, Waiting, Watch, attaches
from comity.transport.methods import Method
from comity.transport.sending import OrderedSender, ahead
from comity.transport.service import Service
from comity.wire.v1.blobs_pb2 import BlobRef


def idle() -> bool:
    """Nothing to do in the meantime."""
    return False


class PeerPort:
    """What a slice's port is derived from: makes declared calls, and lets what they carry through the gate.

    Attributes:
        asks_at_once: Most questions that are asked at a time; the others wait for their turn.

    Args:
        service: The declared calls.
        context: This party's context opposite the one that is called.
        channel: The way there.
    """

    asks_at_once = 1

    def __init__(self, service: Service, context: PeerContext, channel: Channel) -> None:
        self._service = service
        self._peer = context
        self._channel = channel
        self._sender: OrderedSender | None = None
        self._beginning = threading.Lock()
        self._conversations: dict[str, Conversation | None] = {}

    def _call(self, call: Unary, *arguments: Any, base: bytes | None = None) -> Any:
        """Makes a call, after everything that was sent before; returns what the role returned.

        Args:
            call: The call.
            arguments: What the role gets.
            base: A blob that the other party holds, against which those that go along may be sent.
        """
        self._flush()
        return self._make(call, arguments, base)

    def _send(self, call: Unary, *arguments: Any, base: bytes | None = None) -> None:
        """Makes a call whose answer says nothing, in order, while the caller works on.

        What goes wrong on the way is raised by a later call.
        """
        if not self._channel.waits:
            self._make(call, arguments, base)
            return
        if self._sender is None:
            self._sender = OrderedSender()
            self._channel.at_close(self._sender.abandon)
        self._sender.put(partial(self._make, call, arguments, base))

    def _ask(self, call: Waiting | Stream, *arguments: Any) -> Future[Any]:
        """Makes a call that may take its time; those of a `Stream` go on one stream, others see `asks_at_once`.

        Args:
            call: The call.
            arguments: What the role gets.
        """
        if isinstance(call, Stream) and (conversation := self._conversation(call)) is not None:
            return self._converse(conversation, call, arguments)
        if self._channel.waits:
            return self._asking.submit(self._answer, call, arguments)
        answer: Future[Any] = Future()
        answer.set_result(self._answer(call, arguments))
        return answer

    def _conversation(self, call: Stream) -> Conversation | None:
        with self._beginning:
            begun = self._conversations.get(call.method)
            if call.method not in self._conversations or (begun is not None and begun.has_failed):
                conversation = self._channel.converse(self._service.method(call))
                if conversation is not None:
                    conversation.let_out = self._peer.gate.send
                self._conversations[call.method] = conversation
            return self._conversations[call.method]

    def _converse(self, conversation: Conversation, call: Stream, arguments: tuple[Any, ...]) -> Future[Any]:
        """Asks on a stream; what waits for the answer may be cancelled."""
        method, request = self._begin(call, arguments)
        asked, answer = conversation.ask(request), Future[Any]()

        def take(done: Future[Message]) -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(self._take(method, done.result(), request))
            except CancelledError:
                answer.set_exception(NodeDraining("the line is closed", action="run the session again"))
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asks for the result
                answer.set_exception(error)

        asked.add_done_callback(take)
        answer.add_done_callback(lambda each: asked.cancel() if each.cancelled() else None)
        return answer

    def _watch(self, call: Watch, *arguments: Any) -> Iterator[Any]:
        """Follows a stream; gives None where there is nothing until others have had their turn."""
        method, request = self._begin(call, arguments)
        for message in self._channel.follow(method, lambda: request):
            if message is None:
                yield None
                continue
            yield self._take(method, message, request)
            call.resume(request, message)

    def _follow(self, call: Watch, *arguments: Any, meanwhile: Callable[[], bool] = idle) -> Iterator[Any]:
        """Follows a stream; what comes is fetched while the caller works on what has come.

        Args:
            call: The call.
            arguments: What the role gets.
            meanwhile: Does a piece of the caller's own work while nothing has come yet; False when there is none.
        """

        def items() -> Iterator[Any]:
            return (each for each in self._watch(call, *arguments) if each is not None)

        return ahead(items, meanwhile) if self._channel.waits else items()

    def _fetch(self, digest: bytes, size: int, kind: str, units: Units, verify: Callable[[Blob], None]) -> Blob:
        """Downloads a blob that the other party has published."""
        admit = partial(self._peer.gate.admit_blob, digest, kind, units)
        return self._channel.get(digest, size, verify, after=admit, base=None)

    @cached_property
    def _asking(self) -> ThreadPoolExecutor:
        asking = ThreadPoolExecutor(self.asks_at_once, "ask")
        self._channel.at_close(partial(asking.shutdown, cancel_futures=True))
        return asking

    def _begin(self, call: Call, arguments: tuple[Any, ...], base: bytes | None = None) -> tuple[Method, Message]:
        method = self._service.method(call)
        request = method.encode_request(*arguments)
        self._peer.gate.require_backed(request)
        attached: list[tuple[BlobRef, Blob]] = []
        for each in call.uploads:
            blob, reference = self._upload(each, request, method, base), each.reference(request)
            if blob is not None and reference is not None:
                attached.append((reference, blob))
        self._peer.gate.send(request)
        for reference, blob in attached:
            reference.content = bytes(blob.data)
        return method, request

    def _arrived(self, method: Method, request: Message) -> None:
        """Records that the peer has a request, and what was attached to it."""
        if not self._channel.arrives:
            return
        references = ((each.kind, each.reference(request)) for each in method.call.uploads)
        attached = [(kind, each.digest) for kind, each in references if each is not None and each.content]
        with self._peer.journal.transaction() if attached else nullcontext():
            for kind, digest in attached:
                self._peer.gate.deliver_blob(digest, kind, method.request_rule.units_of(request))
            self._peer.gate.deliver(request)

    def _take(self, method: Method, answer: Message, request: Message) -> Any:
        """What an answer says, or an item, once the blobs that come with it are here; and the record that it came."""
        value = method.decode_answer(answer)
        units = method.answer_rule.units_of(answer, request)
        got = [(each.kind, self._download(each, answer, units)) for each in method.call.downloads]
        attached = [(kind, blob) for kind, blob in got if blob is not None]
        # Of small messages, of which there are many at a time, nothing is recorded here, and no transaction is needed.
        with self._peer.journal.transaction() if attached else nullcontext():
            for kind, blob in attached:
                self._peer.gate.admit_blob(blob.digest, kind, units, blob.size)
                self._peer.blobs.add(blob)
            self._peer.gate.admit(answer, request)
        if isinstance(method.call, Waiting | Stream) and method.call.metered:
            return Answered(value, request.ByteSize(), answer.ByteSize())
        return value

    def _make(self, call: Unary, arguments: tuple[Any, ...], base: bytes | None) -> Any:
        method, request = self._begin(call, arguments, base)
        answer = self._channel.call(method, request)
        self._arrived(method, request)
        return self._take(method, answer, request)

    def _answer(self, call: Waiting | Stream, arguments: tuple[Any, ...]) -> Any:
        method, request = self._begin(call, arguments)
        answers = (each for each in self._channel.follow(method, lambda: request) if each is not None)
        answer: Message | None = next(answers, None)
        if answer is None:
            raise MalformedMessage(
                f"{self._peer.peer.party} gave no answer", expected=method.answer_type.__name__, received="nothing"
            )
        self._arrived(method, request)
        return self._take(method, answer, request)

    def _flush(self) -> None:
        if self._sender is not None:
            sender, self._sender = self._sender, None
            sender.finish()

    def _upload(self, each: BlobField, request: Message, method: Method, base: bytes | None) -> Blob | None:
        """Sends a blob that goes along with a request; returns it where it is to be attached instead."""
        digest, units = each.digest(request), method.request_rule.units_of(request)
        if digest is None:
            return None
        blobs, gate = self._peer.blobs, self._peer.gate
        blob = blobs.get(digest)
        may_attach = self._channel.attaches and attaches(method.call) and base is None and blob.size <= ATTACHED
        if may_attach and not gate.has_crossed(digest):
            gate.send_blob(blob, each.kind, units, alone=False)
            return blob

        def before(size: int) -> None:
            gate.send_blob(blob, each.kind, units, size=size)

        self._channel.put(blob, each.kind, units, before, None if base is None else blobs.get(base))
        if self._channel.arrives:
            gate.deliver_blob(digest, each.kind, units)
        return None

    def _download(self, each: BlobField, message: Message, units: Units) -> Blob | None:
        """Gets what a message names, where it is not here; returns what came attached to it, which is yet to be kept."""
        reference, digest, base, blobs = (
            each.reference(message),
            each.digest(message),
            each.base_digest(message),
            self._peer.blobs,
        )
        if reference is None or digest is None:
            return None
        layout = each.layout(self._peer)
        attached = got_attached(reference, layout.size)
        if attached is not None:
            layout.verify(attached)
            return attached
        if digest in blobs:
            return None
        blob = self._channel.get(
            digest,
            layout.size,
            layout.verify,
            after=partial(self._peer.gate.admit_blob, digest, each.kind, units),
            base=None if base is None else blobs.get(base),
        )
        blobs.add(blob)
        return None
