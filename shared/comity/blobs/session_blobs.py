"""The blobs of one session at one party: what it made, what it received, what is still coming."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakSet

from comity import faults
from comity.blobs.blob_files import BlobKeeper, BlobMemory
from comity.blobs.incoming import Incoming
from comity.errors import BlobSizeMismatch, BlobTruncated, TooManyCalls, UnexpectedBlob, UnknownBlob
from comity.ledger.ledger import Units
from comity.tensors import Blob
from comity.tensors.delta import Encoding

Releaser = Callable[[str, Units, Blob], Blob]
"""Makes, of what was made, what may leave, from its egress kind and its units; may give something else than it got, or raise.

It is called once for each release, before the blob is durable and before anything is derived from it: a loss that is told
with a model is the loss of the model as it is sent."""


def unchanged(kind: str, units: Units, blob: Blob) -> Blob:
    """Sends what was made."""
    del kind, units
    return blob


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a peer may upload now.

    Attributes:
        kind: Egress kind of the blobs.
        units: What they belong to: one of these units, or several.
        size: Exact length of each, in bytes.
        count: Most that may come.
        verify: Checks a whole blob's content and raises if it does not fit.
        deltas: Whether they may come as what changed since others.
        digest: Digest of the one that may come; empty for any.
    """

    kind: str
    units: Units
    size: int
    count: int
    verify: Callable[[Blob], None]
    deltas: bool = False
    digest: bytes = b""

    def fits(self, kind: str, units: Units, digest: bytes) -> bool:
        """Whether a blob of a kind, of some units and of a digest may come."""
        return kind == self.kind and self.units.covers(units) and self.digest in {b"", digest}

    def require_form(self, size: int, encoding: Encoding | None) -> None:
        """Checks how a blob is announced.

        Raises:
            UnexpectedBlob: Those that are expected do not come encoded.
            BlobSizeMismatch: None of them has that length.
        """
        if encoding is not None and not self.deltas:
            raise UnexpectedBlob(
                "the blob comes as what changed since another",
                expected="its own bytes",
                received=f"an encoding against {encoding.base.hex()}",
                action="send blobs as the contract says",
            )
        if size != self.size and (encoding is None or size > self.size):
            raise BlobSizeMismatch(
                "the blob has another length",
                expected=f"{self.size} bytes" if encoding is None else f"at most {self.size} bytes",
                received=f"{size} bytes",
                action="send the state dict of the contract's model",
            )

    def __str__(self) -> str:
        """What may come, in words."""
        return f"{self.kind} of {self.units}" + (f", {self.digest.hex()}" if self.digest else "")


class Held(NamedTuple):
    """What is here of a blob.

    Attributes:
        size: Bytes that are here, counted from the beginning.
        complete: Whether no more need come.
        encoding: Digest of the encoding that the bytes are of; empty where they are the blob's own.
    """

    size: int
    complete: bool
    encoding: bytes = b""


class SessionBlobs:
    """The blobs of one session; no other session sees them.

    Args:
        keeper: Where whole blobs are kept; None for memory.
        release: Makes, of what this party made to be sent, what is sent.
        half_uploads: Most uploads that are on their way, or half here, at a time; each takes memory of a blob's size.
    """

    def __init__(
        self, keeper: BlobKeeper | None = None, release: Releaser = unchanged, *, half_uploads: int = 8
    ) -> None:
        self._half_uploads = half_uploads
        self._alive: WeakSet[Incoming] = WeakSet()
        self._release = release
        # Not held while the keeper is asked: that may wait for a transaction in which others ask for blobs.
        self._lock = threading.Lock()
        self._keeper = keeper if keeper is not None else BlobMemory()
        self._published: dict[bytes, tuple[str, Units]] = {}
        self._incoming: dict[bytes, Incoming] = {}
        self._expected: tuple[Expectation, ...] = ()
        self._received: dict[bytes, Expectation] = {}
        self._settled: set[bytes] = set()

    def expect(self, *expectations: Expectation) -> None:
        """Replaces what a peer may upload from now on; nothing if nothing is said. What was half received is dropped."""
        with self._lock:
            self._expected = expectations
            self._received.clear()
            self._incoming.clear()

    def expects(self, kind: str, units: Units, digest: bytes) -> bool:
        """Whether a peer may upload a blob of a kind, of some units and of a digest now."""
        with self._lock:
            return any(each.fits(kind, units, digest) for each in self._expected)

    def settle(self, digest: bytes) -> None:
        """Says that a blob need not come again for now, though it may be dropped: what it was for is done."""
        with self._lock:
            self._settled.add(digest)

    def unsettle(self) -> None:
        """Forgets what was settled: from now on it may be needed again."""
        with self._lock:
            self._settled.clear()

    def add(self, blob: Blob) -> Blob:
        """Keeps a whole blob; returns it as it is kept. It is durable before anything that is written later and names it."""
        if (kept := self._keeper.read(blob.digest)) is not None:
            return kept
        kept = self._keeper.write(blob)
        faults.point("commit")
        return kept

    def release(self, blob: Blob, kind: str, units: Units) -> Blob:
        """Keeps what is to be sent for a blob that this party made; returns it as it is kept.

        Everything that a party makes for others comes into being here. What is told with it, such as a loss, is to be taken
        of what this returns: it may be another blob than the one that was made.

        Args:
            blob: What was made.
            kind: Its egress kind.
            units: What it belongs to.

        Raises:
            PolicyRefusal: Nothing may be sent for it.
        """
        return self.add(self._release(kind, units, blob))

    def publish(self, digest: bytes, kind: str, units: Units) -> None:
        """Lets the other party have a blob that is kept here; no other can be asked for."""
        with self._lock:
            self._published[digest] = kind, units

    def published(self, digest: bytes) -> tuple[Blob, str, Units]:
        """A blob that the other party may have, with its kind and what it belongs to.

        Raises:
            UnknownBlob: There is none of that digest.
        """
        with self._lock:
            place = self._published.get(digest)
        if place is None:
            raise _unknown(digest)
        return self.get(digest), *place

    def get(self, digest: bytes) -> Blob:
        """A whole blob.

        Raises:
            UnknownBlob: It is not here.
        """
        blob = self._keeper.read(digest)
        if blob is None:
            raise _unknown(digest)
        return blob

    def __contains__(self, digest: bytes) -> bool:
        """Whether the whole blob is here."""
        return self._keeper.read(digest) is not None

    def held(self, digest: bytes) -> Held:
        """What is here of a blob."""
        blob = self._keeper.read(digest)
        with self._lock:
            if digest in self._settled:
                return Held(0, True)
            if blob is not None:
                return Held(blob.size, True)
            incoming = self._incoming.get(digest)
            if incoming is None:
                return Held(0, False)
            return Held(incoming.held, False, incoming.encoding.digest if incoming.encoding else b"")

    def drop(self, digest: bytes) -> None:
        """Drops a whole blob."""
        self._keeper.remove([digest])
        with self._lock:
            self._published.pop(digest, None)

    def keep(self, digests: Collection[bytes]) -> None:
        """Drops every whole blob but these."""
        self._keeper.remove(self._keeper.digests() - set(digests))
        with self._lock:
            self._published = {digest: place for digest, place in self._published.items() if digest in digests}

    def receive(
        self, kind: str, units: Units, digest: bytes, size: int, offset: int, encoding: Encoding | None = None
    ) -> Incoming:
        """Begins, or goes on with, the upload of a blob.

        The upload is taken out until `put_back` or `complete`, so two uploads of one blob never write to one buffer.

        Args:
            kind: What it is.
            units: What it belongs to.
            digest: Its digest.
            size: Length of what comes, in bytes.
            offset: How many of these are said to be here.
            encoding: How it comes; None for the blob's own bytes.

        Raises:
            UnexpectedBlob: No blob of this kind, of these units and in this form is expected, or no further one.
            BlobSizeMismatch: It is announced with a length that no such blob has.
            BlobTruncated: The upload does not go on where the bytes held end.
            UnknownBlob: The encoding's base is not here.
        """
        base = None if encoding is None else self._keeper.read(encoding.base)
        with self._lock:
            expected = self._expectation_of(kind, units, digest)
            expected.require_form(size, encoding)
            if encoding is not None and (base is None or base.size != expected.size):
                raise _unknown(encoding.base)
            self._count(digest, expected)
            incoming = self._incoming.pop(digest, None)
            if incoming is None or (incoming.encoding, incoming.size) != (encoding, size):
                # One form of a blob at a time: a peer cannot have memory taken by many.
                self._make_room()
                incoming = Incoming(digest, size, encoding, base)
                self._alive.add(incoming)
            if incoming.held != offset:
                self._incoming[digest] = incoming
                raise BlobTruncated(
                    "the upload does not go on where it ended",
                    expected=f"offset {incoming.held}",
                    received=f"offset {offset}",
                    action="ask how much is held and go on from there",
                )
            return incoming

    @property
    def is_receiving(self) -> bool:
        """Whether something is on its way, or half here."""
        with self._lock:
            return bool(self._alive)

    def drop_half_uploads(self, after_s: float) -> None:
        """Drops uploads that were cut, and that nobody has gone on with for so many seconds."""
        late = time.monotonic() - after_s
        with self._lock:
            for digest in [digest for digest, each in self._incoming.items() if each.cut < late]:
                del self._incoming[digest]

    def _make_room(self) -> None:
        """Drops the oldest of the uploads that are half here, where there are as many as may be.

        Raises:
            TooManyCalls: All of them are on their way.
        """
        while len(self._alive) >= self._half_uploads:
            if not self._incoming:
                raise TooManyCalls(
                    "too many uploads at once",
                    expected=f"at most {self._half_uploads} in a session",
                    received="one more",
                    action="wait until one has ended",
                )
            del self._incoming[next(iter(self._incoming))]

    def _expectation_of(self, kind: str, units: Units, digest: bytes) -> Expectation:
        for each in self._expected:
            if each.fits(kind, units, digest):
                return each
        raise UnexpectedBlob(
            "this blob is not expected",
            expected=self._waited_for(),
            received=f"{kind} of {units}",
            action="wait until it is asked for",
        )

    def _count(self, digest: bytes, expected: Expectation) -> None:
        """Counts a blob among those that may come."""
        others = sum(each is expected for at, each in self._received.items() if at != digest)
        if others >= expected.count:
            raise UnexpectedBlob(
                f"too many blobs: {expected}",
                expected=f"at most {expected.count}",
                received="one more",
                action="send no more than the contract says",
            )
        self._received[digest] = expected

    def _waited_for(self) -> str:
        return ", or ".join(map(str, self._expected)) or "no upload now"

    def name(self, incoming: Incoming, digest: bytes) -> None:
        """Gives an upload its digest, which was not known when it began."""
        with self._lock:
            expected = self._received.pop(incoming.digest, None)
            if expected is not None:
                self._received[digest] = expected
            incoming.digest = digest

    def put_back(self, incoming: Incoming) -> None:
        """Keeps an upload that was cut, to be continued."""
        with self._lock:
            if incoming.digest in self._received:
                incoming.cut = time.monotonic()
                self._incoming[incoming.digest] = incoming

    def forget(self, incoming: Incoming) -> None:
        """Drops an upload that cannot be used, so that it does not count."""
        with self._lock:
            self._received.pop(incoming.digest, None)

    def complete(self, incoming: Incoming, before: Callable[[Blob], None]) -> Blob:
        """Checks and keeps an upload that came whole; one that fails the check is forgotten.

        Args:
            incoming: The upload.
            before: Called with the checked blob before it is kept: what is kept was recorded.

        Raises:
            UnexpectedBlob: What is expected has changed since it began.
            BlobTruncated: Bytes are missing; what came is kept.
            BlobCorrupted: The bytes have another digest.
            TensorMismatch: The tensors are not the expected ones.
            NonFiniteValue: A value is NaN or infinite.
        """
        with self._lock:
            expected = self._received.get(incoming.digest)
            waited_for = self._waited_for()
        if expected is None:
            raise UnexpectedBlob(
                "this blob is not expected any more",
                expected=waited_for,
                received=incoming.digest.hex(),
                action="wait until it is asked for",
            )
        try:
            blob = incoming.finish()
            expected.verify(blob)
            before(blob)
            return self.add(blob)
        except BlobTruncated:
            self.put_back(incoming)
            raise
        except Exception:
            self.forget(incoming)
            raise


def _unknown(digest: bytes) -> UnknownBlob:
    return UnknownBlob(
        "no such blob in this session",
        expected="one that is kept, and may be had",
        received=digest.hex(),
        action="send it first",
    )
