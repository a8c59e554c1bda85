"""Calls in bundles that are carried, where no network joins two parties.

The caller's part of a round is one bundle and what answers it is another. Calls whose answers say nothing wait to be brought;
one whose answer is not here ends the caller's work with `AnswerDue`. The other side does call by call what a network would
have done, works, and gives back with the answers the streams that the caller would follow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError, Message

from comity.blobs.incoming import Incoming
from comity.errors import MalformedMessage, RoundOutOfOrder, StorageCorrupted, StorageFailed
from comity.ledger.ledger import Units
from comity.session.contexts import PeerContext
from comity.session.replayable_stream import StreamEnd
from comity.session.session_registry import AcceptedSession
from comity.session.worker import InlineWorker
from comity.tensors import Blob
from comity.transport.bindings.conversation import Conversation
from comity.transport.bindings.dispatcher import Following, dispatch
from comity.transport.blobs import digest_in
from comity.transport.bundles import AnswerDue, Bundle, ReceivedBundle, bundled, unpacked
from comity.transport.calls import BlobField, Unary, Watch
from comity.transport.methods import Method
from comity.transport.service import Service
from comity.wire.v1 import blobs_pb2
from comity.wire.v1 import bundles_pb2 as pb


class OfflineRecord:
    """What a node keeps of a session between two bundles, in a file.

    Attributes:
        round: Round of the last bundle that was taken.
        taking: Round of one that was begun, and has not been taken whole; 0 for none.
        calls: At the caller, calls that no bundle has brought yet; at the other, those of the last one, with their answers.
        held: Digests of blobs that the other party holds.

    Args:
        path: The file; it need not be there.

    Raises:
        StorageCorrupted: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            kept = pb.OfflineState.FromString(path.read_bytes()) if path.is_file() else pb.OfflineState()
        except DecodeError as error:
            raise StorageCorrupted(f"{path} cannot be read", expected="what an export or import wrote") from error
        self.round = kept.round
        self.taking = kept.taking
        self.calls = list(kept.calls)
        self.held = {digest_in(each) for each in kept.held}

    def save(self) -> None:
        """Keeps it, whole or not at all.

        Raises:
            StorageFailed: It cannot be written.
        """
        held = [blobs_pb2.BlobRef(digest=each) for each in sorted(self.held)]
        state = pb.OfflineState(round=self.round, taking=self.taking, calls=self.calls, held=held)
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(state.SerializeToString())
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            raise StorageFailed(
                f"{self._path} cannot be written", expected="a writable disk with space", received=error
            ) from error

    def remove(self) -> None:
        """Forgets it: the session is over."""
        self._path.unlink(missing_ok=True)


class OfflineChannel:
    """Implements `Channel` for a caller whose peer is a journey away.

    Args:
        context: The caller's context opposite the other party.
        record: What is kept between bundles.
        answer: The bundle that answers the active round; None while it is not here.
    """

    waits = False
    arrives = False
    attaches = False

    def __init__(self, context: PeerContext, record: OfflineRecord, answer: ReceivedBundle | None = None) -> None:
        self.answer = answer
        self._context = context
        self._record = record
        self._calls = list(record.calls)
        self._blobs: dict[bytes, Blob] = {}
        self._named: set[bytes] = set()
        self._has_arrived = False

    def call(self, method: Method, request: Message) -> Message:
        """See `Channel.call`; what the other party does not like about it, it says when it takes the bundle.

        Raises:
            AnswerDue: The answer says something, and is not here.
        """
        made = bundled(method.path, request)
        if not method.is_answered:
            self._keep(made)
            return method.answer_type()
        units = method.request_rule.units_of(request)
        answers = self._answers(method, request, units)
        if answers is None:
            bundle = Bundle(units.first, [*self._calls, made], list(self._blobs.values()), self._named)
            self._calls, self._blobs, self._named = list(self._record.calls), {}, set()
            raise AnswerDue(bundle)
        return answers[0]

    def follow(self, method: Method, request: Callable[[], Message]) -> Iterator[Message | None]:
        """See `Channel.follow`; all of it is here, or nothing.

        Raises:
            RoundOutOfOrder: It is not here.
        """
        asked = request()
        units = method.request_rule.units_of(asked)
        answers = self._answers(method, asked, units)
        if answers is None:
            raise RoundOutOfOrder(
                "there are no results of that round",
                expected=f"the bundle that answers {units}",
                received=f"one of round {self.answer.round}" if self.answer is not None else "none",
                action="import it, again if that was cut short",
            )
        yield from answers

    def converse(self, method: Method) -> Conversation | None:
        """See `Channel.converse`; a protocol with such a call is not brought by hand."""
        del method
        return None

    def put(self, blob: Blob, kind: str, units: Units, before: Callable[[int], None], base: Blob | None) -> None:  # noqa: ARG002
        """See `Channel.put`; it goes along with the next bundle."""
        self._named.add(blob.digest)
        is_answered = self.answer is not None and self.answer.round == units.first
        if blob.digest not in self._record.held and not is_answered:
            before(blob.size)
            self._blobs[blob.digest] = blob

    def get(
        self,
        digest: bytes,
        size: int,
        verify: Callable[[Blob], None],
        *,
        after: Callable[[int], None],
        base: Blob | None,  # noqa: ARG002
    ) -> Blob:
        """See `Channel.get`; it is in the bundle."""
        incoming = Incoming(digest, size)
        if self.answer is not None:
            self.answer.fill(incoming)
        blob = incoming.finish()
        verify(blob)
        after(size)
        return blob

    def at_close(self, end: Callable[[], None]) -> None:
        """Nothing is ever on."""

    def _keep(self, made: pb.BundledCall) -> None:
        if made in self._calls:
            return
        self._calls.append(made)
        if self._has_arrived:
            # What came before an answer is made again by whoever goes on from what is kept; what came after it is not.
            self._record.calls.append(made)
            self._record.save()

    def _answers(self, method: Method, request: Message, units: Units) -> list[Message] | None:
        """What answers a call; None where the bundle that answers it is not here.

        Raises:
            MalformedMessage: The bundle lacks it.
        """
        if self.answer is None or self.answer.round != units.first:
            return None
        for each in self.answer.calls:
            if each.method != method.path:
                continue
            answers: list[Message] = [unpacked(answer, method.answer_type) for answer in each.answers]
            begin = _beginning(method, unpacked(each.request, method.request_type), request, answers)
            if begin is not None or isinstance(method.call, Watch):
                self._arrive(self.answer, units)
                return answers[begin:] if begin is not None else []
        raise MalformedMessage(
            "the answer is incomplete",
            expected=f"what answers {method.call.method}",
            received="none",
            action=f"ask the operator of {self._context.peer.party}",
        )

    def _arrive(self, answer: ReceivedBundle, units: Units) -> None:
        """There would be no answer if what was sent before it had not arrived."""
        if self._has_arrived:
            return
        self._context.gate.deliver_all(units)
        self._has_arrived = True
        self._calls, self._blobs = [], {}
        self._record.calls, self._record.held = [], {*answer.held}
        self._record.save()


def take(service: Service, session: AcceptedSession, bundle: ReceivedBundle, record: OfflineRecord) -> None:
    """Does what a bundle asks, call by call; again without harm, and nothing for one that another has followed.

    Raises:
        PeerMessageError: A call does not fit; those before it are done.
    """
    if bundle.round < record.round:
        return
    # All of them are read before the first is done.
    calls = [_read(service, each) for each in bundle.calls]
    answered = []
    for method, request in calls:
        for each in method.call.uploads:
            _take_upload(session, bundle, each, request, method.request_rule.units_of(request))
        answer = dispatch(session, method, request)
        if record.taking != bundle.round:
            record.taking = bundle.round
            record.save()
        if method.is_answered:
            answered.append(bundled(method.path, request, answer))
    record.round, record.taking, record.calls, record.held = bundle.round, 0, answered, {*bundle.held}
    record.save()


def answer(service: Service, session: AcceptedSession, record: OfflineRecord) -> Bundle | None:
    """Works on what a bundle asked, and returns what answers it; None before the first.

    Raises:
        RoundOutOfOrder: Another was begun since, and not taken whole.
        ComityError: The session cannot go on.
    """
    if record.taking:
        raise RoundOutOfOrder(
            f"the other party's part of round {record.taking} is not whole",
            expected="all of its bundle",
            received="some of it",
            action="import the bundle again",
        )
    if not record.round:
        return None
    worker = session.worker
    while isinstance(worker, InlineWorker) and worker.advance():
        pass
    calls, blobs, named = list(record.calls), dict[bytes, Blob](), set[bytes]()
    for made in record.calls:
        method, _ = _read(service, made)
        for answered in made.answers:
            _give_all(session, method, unpacked(answered, method.answer_type), record.held, blobs, named)
    for method in service.watches:
        if isinstance(method.call, Watch) and method.call.offline is not None:
            request = method.encode_request(*method.call.offline(record.round))
            messages = _followed(session, method, request)
            for message in messages:
                _give_all(session, method, message, record.held, blobs, named)
            calls.append(bundled(method.path, request, *messages))
    return Bundle(record.round, calls, list(blobs.values()), named)


def _followed(session: AcceptedSession, method: Method, request: Message) -> list[Message]:
    """All of a stream, once the role's work is done."""
    following, messages = Following(session, method, request), list[Message]()
    try:
        while (message := following.read()) is not None:
            messages.append(message)
    except StreamEnd:
        return messages
    finally:
        following.close()
    raise RoundOutOfOrder(
        f"{method.call.method} has no end yet",
        expected="all of it",
        received=f"{len(messages)} messages",
        action="import the bundle that it answers",
    )


def _give_all(
    session: AcceptedSession,
    method: Method,
    message: Message,
    held: set[bytes],
    given: dict[bytes, Blob],
    named: set[bytes],
) -> None:
    """Gives the blobs that come with an answer, or an item."""
    for each in method.call.downloads:
        digest = each.digest(message)
        if digest is None:
            continue
        named.add(digest)
        if digest not in held and digest not in given:
            blob, kind, units = session.blobs.published(digest)
            session.gate.send_blob(blob, kind, units)
            given[digest] = blob


def _read(service: Service, call: pb.BundledCall) -> tuple[Method, Message]:
    for method in service.methods.values():
        if method.path == call.method and isinstance(method.call, Unary):
            return method, unpacked(call.request, method.request_type)
    raise MalformedMessage(
        "the bundle holds a call that cannot be brought",
        expected=", ".join(name for name, each in service.methods.items() if isinstance(each.call, Unary)),
        received=call.method[:100] or "none",
        action="run the same version of comity on both sides",
    )


def _take_upload(
    session: AcceptedSession, bundle: ReceivedBundle, each: BlobField, request: Message, units: Units
) -> None:
    """Takes a blob from the bundle, as an upload would bring it."""
    digest = each.digest(request)
    if digest is None or digest not in bundle or session.blobs.held(digest).complete:
        return
    incoming = session.blobs.receive(each.kind, units, digest, bundle.blob_size, 0)
    try:
        bundle.fill(incoming)
    except BaseException:
        session.blobs.forget(incoming)
        raise
    session.blobs.complete(incoming, lambda whole: session.gate.admit_blob(whole.digest, each.kind, units, whole.size))


def _beginning(method: Method, given: Message, asked: Message, answers: list[Message]) -> int | None:
    """How many of the answers that were given to one request the caller has by another; None where they are of no use."""
    call = method.call
    for number, answer in enumerate([*answers, None]):
        if given == asked:
            return number
        if not isinstance(call, Watch) or answer is None:
            return None
        call.resume(given, answer)
    return None
