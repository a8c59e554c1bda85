"""A node's line to one peer: calls with deadlines, tried again with back-off, resumed where they were cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import stamina
from google.protobuf.message import Message

from comity.blobs.incoming import Incoming
from comity.errors import (
    BlobTruncated,
    ComityError,
    DataChanged,
    DeadlineExceeded,
    NodeDraining,
    PeerUnreachable,
    TooManyCalls,
)
from comity.ledger.ledger import Units
from comity.session.presence import Presence
from comity.tensors import Blob
from comity.tensors.delta import Encoding, shortest
from comity.transport import retry as times
from comity.transport.addresses import split_address
from comity.transport.blobs import SERVICE, chunks, coming, decode_chunk, encode_chunk, put_metadata
from comity.transport.call_watchers import UnaryCalls, is_watched, measured
from comity.transport.diagnosis import diagnose, require_unrevoked
from comity.transport.identity import CONTRACT_KEY, PARTY_KEY, SESSION_KEY, Identity
from comity.transport.retry import RetryPolicy
from comity.transport.status import from_rpc_error
from comity.wire.v1 import blobs_pb2

Kind = TypeVar("Kind", bound=Message)
Request = TypeVar("Request")
Response = TypeVar("Response")
Stub = TypeVar("Stub")
Result = TypeVar("Result")

_RETRIED = (PeerUnreachable, DeadlineExceeded, NodeDraining, DataChanged, BlobTruncated, TooManyCalls)
"""Errors that may pass by themselves; every call can be repeated without harm."""

_OPTIONS = [
    ("grpc.max_receive_message_length", 8 * 2**20),
    ("grpc.initial_reconnect_backoff_ms", times.milliseconds(times.FIRST_PAUSE_S)),
    ("grpc.max_reconnect_backoff_ms", times.milliseconds(times.LONGEST_PAUSE_S)),
]


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return message.SerializeToString()


class PeerConnection:
    """A channel to one peer.

    Args:
        identity: Who calls.
        party: Who is called; its certificate must say so.
        address: Where it listens, `host:port`.
        retry: How long to wait for it.

    Raises:
        InvalidValue: The address is none.
        MissingFile: A TLS file is not there, or no card of the party.
        PolicyRefusal: The party's certificate is revoked.
    """

    def __init__(self, identity: Identity, party: str, address: str, retry: RetryPolicy) -> None:
        split_address(address)
        self.party = party
        self.retry = retry
        self._identity = identity
        self._address = address
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._session = ""
        self._at_close: list[Callable[[], None]] = []
        self.presence = Presence()
        """Whether the peer answers."""
        self._closing = threading.Lock()
        self._is_closed = False
        self._unchecked = identity.is_secure and bool(identity.revoked)
        options: list[tuple[str, Any]] = [*_OPTIONS, *times.keepalive()]
        if identity.is_secure:
            options += [("grpc.ssl_target_name_override", party), ("grpc.default_authority", party)]
            self.channel = grpc.secure_channel(address, identity.client_credentials(party), options)
        else:
            self.channel = grpc.insecure_channel(address, options)
            self._metadata = ((PARTY_KEY, identity.party),)
        if is_watched():
            self.channel = grpc.intercept_channel(self.channel, UnaryCalls(SESSION_KEY))
        self._stat = self.channel.unary_unary(
            f"/{SERVICE}/Stat", blobs_pb2.BlobRef.SerializeToString, blobs_pb2.BlobStat.FromString
        )
        self._put = self.channel.stream_unary(f"/{SERVICE}/Put", encode_chunk, blobs_pb2.BlobStat.FromString)
        self._get = self.channel.unary_stream(f"/{SERVICE}/Get", blobs_pb2.BlobRequest.SerializeToString, decode_chunk)

    def enter(self, session: str, contract_hash: str) -> None:
        """Makes every later call quote a session and its contract, in place of those that it quoted."""
        self._session = session
        others = (each for each in self._metadata if each[0] not in {SESSION_KEY, CONTRACT_KEY})
        self._metadata = (*others, (SESSION_KEY, session), (CONTRACT_KEY, contract_hash))

    def __enter__(self) -> Self:
        """Opens nothing: the channel connects at the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the line."""
        self.close()

    def close(self) -> None:
        """Closes the channel, and ends what works on it; calls that wait fail. Closing twice is fine."""
        with self._closing:
            self._is_closed = True
            self.channel.close()
        for end in self._at_close:
            end()

    def stub(self, make: Callable[[grpc.Channel], Stub]) -> Stub:
        """A service's stub on this line.

        Raises:
            PeerUnreachable: The line is closed. To a closed channel grpc would add methods where it is no more.
        """
        with self._closing:
            self._require_open()
            return make(self.channel)

    def unary(self, path: str, answer: type[Kind]) -> grpc.UnaryUnaryMultiCallable[Message, Kind]:
        """A method with one answer, by its path; see `stub`."""
        return self.stub(lambda channel: channel.unary_unary(path, encode, answer.FromString))

    def stream(self, path: str, answer: type[Kind]) -> grpc.UnaryStreamMultiCallable[Message, Kind]:
        """A method with a stream of answers, by its path; see `stub`."""
        return self.stub(lambda channel: channel.unary_stream(path, encode, answer.FromString))

    def require_trusted(self, identity: Identity) -> None:
        """Goes by what is trusted, and revoked, now.

        Args:
            identity: Who calls, with the deny-list as it is now.

        Raises:
            MissingFile: There is no card of the peer any more.
            PolicyRefusal: The peer's certificate is revoked.
        """
        self._identity = identity
        if identity.is_secure and not self._is_closed:
            identity.trusted().roots_for(self.party)
            self._unchecked = bool(identity.revoked)
            self._require_unrevoked()

    def at_close(self, end: Callable[[], None]) -> None:
        """Has something called once the line is closed."""
        self._at_close.append(end)

    def call(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Makes a small call.

        Raises:
            ComityError: What the peer answered, or why it did not.
        """
        return self._retried(lambda: method(request, timeout=self.retry.call_s, metadata=self._metadata))

    def watch(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response] | grpc.StreamStreamMultiCallable[Any, Response],
        request: Callable[[], Any],
    ) -> Iterator[Response]:
        """Follows a stream to its end, starting it again after a cut.

        Args:
            method: The stub's method; of one in both directions the request is an iterator of them.
            request: Makes the request anew for each start, so that it says what came already.

        Raises:
            ComityError: What the peer answered, or why it did not.
        """

        def begin() -> tuple[Any, Response | None]:
            answers = method(request(), metadata=self._metadata)
            return answers, next(answers, None)

        while True:
            answers, first = self._retried(begin)
            if first is None:
                return
            try:
                yield first
                yield from answers
            except grpc.RpcError as failure:
                self._require_open()
                error = self._explain(failure)
                if not isinstance(error, _RETRIED):
                    raise error from failure
            else:
                return
            finally:
                # Who follows no more says so, and does not leave it to whenever this is collected.
                answers.cancel()

    def put(
        self, blob: Blob, kind: str, units: Units, *, before: Callable[[int], None], base: Blob | None = None
    ) -> None:
        """Uploads what the peer does not hold of a blob.

        Args:
            blob: The blob.
            kind: What it is.
            units: What it belongs to.
            before: Called, with the length of what is sent, before any byte leaves; raises if it may not.
            base: A blob that the peer holds: what changed since it is sent, where that is shorter.

        Raises:
            ComityError: What the peer answered, or why it did not.
        """
        form: tuple[Blob, Encoding | None] | None = None

        def attempt() -> None:
            nonlocal form
            stat = self._stat(blobs_pb2.BlobRef(digest=blob.digest), timeout=self.retry.call_s, metadata=self._metadata)
            if stat.complete:
                return
            form = form or shortest(blob, base)
            sent, encoding = form
            held = stat.held if stat.encoding == (encoding.digest if encoding else b"") else 0
            before(sent.size)
            beside = (*self._metadata, *put_metadata(blob, kind, units, held, sent, encoding))
            with measured("client", f"{SERVICE}/Put", self._session):
                self._put(chunks(sent, held), timeout=self._transfer_s(sent.size), metadata=beside)

        self._retried(attempt)

    def get(
        self,
        digest: bytes,
        size: int,
        verify: Callable[[Blob], None],
        *,
        after: Callable[[int], None] = lambda _: None,
        base: Blob | None = None,
    ) -> Blob:
        """Downloads a blob into a buffer of its size, going on where a cut left off.

        Args:
            digest: Its digest.
            size: Its length.
            verify: Checks the whole blob and raises if it does not fit.
            after: Called, with the length of what came, once the blob is whole and verified.
            base: A blob that the peer published: what changed since it may come instead.

        Raises:
            ComityError: What the peer answered, why it did not, or how the blob is wrong.
        """
        incoming = Incoming(digest, size)
        request = blobs_pb2.BlobRequest(blob=blobs_pb2.BlobRef(digest=digest))
        if base is not None:
            request.base.digest = base.digest

        def attempt() -> Blob:
            nonlocal incoming
            request.offset = incoming.held
            pieces = self._get(request, timeout=self._transfer_s(size), metadata=self._metadata)
            if base is not None:
                form = coming(pieces.initial_metadata() or (), incoming, size, base)
                if form is not incoming and request.offset:
                    incoming = form
                    pieces.cancel()
                    raise BlobTruncated("the peer gives the blob in another form", action="get it anew")
                incoming = form
            with measured("client", f"{SERVICE}/Get", self._session):
                for piece in pieces:
                    incoming.write(piece)
            return incoming.finish()

        blob = self._retried(attempt)
        verify(blob)
        after(incoming.size)
        return blob

    def _transfer_s(self, size: int) -> float:
        return self.retry.call_s + size / times.SLOWEST_BYTES_PER_S

    def _retried(self, attempt: Callable[[], Result]) -> Result:
        # To stamina, no time to try is a mistake.
        retry_s = self.presence.wait_s(self.retry.retry_s) or None
        attempts = None if retry_s else 1
        for trial in stamina.retry_context(
            # What is closed here stays so.
            on=lambda error: isinstance(error, _RETRIED) and not self._is_closed,
            attempts=attempts,
            timeout=retry_s,
            wait_initial=times.FIRST_PAUSE_S,
            wait_max=times.LONGEST_PAUSE_S,
        ):
            with trial:
                self._require_open()
                self._require_unrevoked()
                try:
                    result = attempt()
                except ValueError:
                    # What grpc says of a call on a channel that was closed meanwhile.
                    self._require_open()
                    raise
                except grpc.RpcError as failure:
                    self._require_open()
                    error = self._explain(failure)
                    # One that is busy with this party's other calls is there.
                    if isinstance(error, _RETRIED) and not isinstance(error, TooManyCalls):
                        self.presence.lost(error)
                    raise error from failure
                self.presence.returned()
                return result
        raise AssertionError("a retry context ends with a result or an error")

    def _require_open(self) -> None:
        if self._is_closed:
            raise PeerUnreachable(f"the line to {self.party} is closed here", action="open another")

    def _require_unrevoked(self) -> None:
        """Checks, before the first call and under a new deny-list, that the peer's certificate is not on it."""
        if self._unchecked:
            # Of a peer that is away nothing is seen: it is looked at again when it is called.
            self._unchecked = not require_unrevoked(self._address, self.party, self._identity)

    def _explain(self, failure: grpc.RpcError) -> ComityError:
        error = from_rpc_error(failure)
        if isinstance(error, PeerUnreachable):
            return diagnose(self._address, self.party, self._identity, error.received or "")
        if isinstance(error, DeadlineExceeded) and error.expected is None:
            return DeadlineExceeded(
                f"{self.party} did not answer in time",
                expected=f"an answer from {self._address} within {self.retry.call_s:g} s",
                received=error.received,
                action="check the network between, and whether its machine is overloaded",
            )
        return error
