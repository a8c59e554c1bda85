"""The blobs of one session at one party: what it made, what it received, what is still coming."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from comity import faults
from comity.blobs.blob_files import BlobKeeper, BlobMemory
from comity.blobs.incoming import Incoming
from comity.errors import BlobSizeMismatch, BlobTruncated, UnexpectedBlob, UnknownBlob
from comity.tensors import Blob
from comity.tensors.delta import Encoding

Releaser = Callable[[str, int, Blob], Blob]
"""Makes, of what was made, what may leave, from its egress kind and round; may give something else than it got, or raise.

It is called once for each release, before the blob is durable and before anything is derived from it: a loss that is told
with a model is the loss of the model as it is sent."""


def unchanged(kind: str, round: int, blob: Blob) -> Blob:
    """Sends what was made."""
    del kind, round
    return blob


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a peer may upload now.

    Attributes:
        kind: Egress kind of the blobs.
        round: Round they belong to.
        size: Exact length of each, in bytes.
        count: Most that may come.
        verify: Checks a whole blob's content and raises if it does not fit.
        until: Last round they may belong to; None for `round` alone.
        deltas: Whether they may come as what changed since others.
    """

    kind: str
    round: int
    size: int
    count: int
    verify: Callable[[Blob], None]
    until: int | None = None
    deltas: bool = False

    def fits(self, kind: str, round: int) -> bool:
        """Whether a blob of a kind and a round may come."""
        return kind == self.kind and self.round <= round <= (self.until or self.round)


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
    """

    def __init__(self, keeper: BlobKeeper | None = None, release: Releaser = unchanged) -> None:
        self._release = release
        self._lock = threading.Lock()
        self._keeper = keeper if keeper is not None else BlobMemory()
        self._published: dict[bytes, tuple[str, int]] = {}
        self._incoming: dict[bytes, Incoming] = {}
        self._expected: Expectation | None = None
        self._received: set[bytes] = set()
        self._settled: set[bytes] = set()

    def expect(self, expectation: Expectation | None) -> None:
        """Replaces what a peer may upload from now on; None for nothing. What was half received is dropped."""
        with self._lock:
            self._expected = expectation
            self._received.clear()
            self._incoming.clear()

    def settle(self, digest: bytes) -> None:
        """Says that a blob need not come again this round, though it may be dropped: what it was for is done."""
        with self._lock:
            self._settled.add(digest)

    def begin_round(self) -> None:
        """Forgets what was settled in the round before."""
        with self._lock:
            self._settled.clear()

    def add(self, blob: Blob) -> Blob:
        """Keeps a whole blob, durably; returns it as it is kept."""
        with self._lock:
            if (kept := self._keeper.read(blob.digest)) is not None:
                return kept
            kept = self._keeper.write(blob)
        faults.point("commit")
        return kept

    def release(self, blob: Blob, kind: str, round: int) -> Blob:
        """Keeps, durably, what is to be sent for a blob that this party made; returns it as it is kept.

        Everything that a party makes for others comes into being here. What is told with it, such as a loss, is to be taken
        of what this returns: it may be another blob than the one that was made.

        Args:
            blob: What was made.
            kind: Its egress kind.
            round: Round it belongs to.

        Raises:
            PolicyRefusal: Nothing may be sent for it.
        """
        return self.add(self._release(kind, round, blob))

    def publish(self, digest: bytes, kind: str, round: int) -> None:
        """Lets the other party have a blob that is kept here; no other can be asked for."""
        with self._lock:
            self._published[digest] = kind, round

    def published(self, digest: bytes) -> tuple[Blob, str, int]:
        """A blob that the other party may have, with its kind and round.

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
        with self._lock:
            blob = self._keeper.read(digest)
        if blob is None:
            raise _unknown(digest)
        return blob

    def __contains__(self, digest: bytes) -> bool:
        """Whether the whole blob is here."""
        with self._lock:
            return self._keeper.read(digest) is not None

    def held(self, digest: bytes) -> Held:
        """What is here of a blob."""
        with self._lock:
            if digest in self._settled:
                return Held(0, True)
            if (blob := self._keeper.read(digest)) is not None:
                return Held(blob.size, True)
            incoming = self._incoming.get(digest)
            if incoming is None:
                return Held(0, False)
            return Held(incoming.held, False, incoming.encoding.digest if incoming.encoding else b"")

    def drop(self, digest: bytes) -> None:
        """Drops a whole blob."""
        with self._lock:
            self._keeper.remove(digest)
            self._published.pop(digest, None)

    def keep(self, digests: Collection[bytes]) -> None:
        """Drops every whole blob but these."""
        with self._lock:
            for digest in self._keeper.digests() - set(digests):
                self._keeper.remove(digest)
            self._published = {digest: place for digest, place in self._published.items() if digest in digests}

    def receive(
        self, kind: str, round: int, digest: bytes, size: int, offset: int, encoding: Encoding | None = None
    ) -> Incoming:
        """Begins, or goes on with, the upload of a blob.

        The upload is taken out until `put_back` or `complete`, so two uploads of one blob never write to one buffer.

        Args:
            kind: What it is.
            round: Round it belongs to.
            digest: Its digest.
            size: Length of what comes, in bytes.
            offset: How many of these are said to be here.
            encoding: How it comes; None for the blob's own bytes.

        Raises:
            UnexpectedBlob: No blob of this kind, round and form is expected, or no further one.
            BlobSizeMismatch: It is announced with a length that no such blob has.
            BlobTruncated: The upload does not go on where the bytes held end.
            UnknownBlob: The encoding's base is not here.
        """
        with self._lock:
            expected = self._expected
            if expected is None or not expected.fits(kind, round):
                waiting = f"{expected.kind} of round {expected.round}" if expected else "no upload now"
                raise UnexpectedBlob(
                    "nobody waits for this blob",
                    expected=waiting,
                    received=f"{kind} of round {round}",
                    action="wait for the round",
                )
            if encoding is not None and not expected.deltas:
                raise UnexpectedBlob(
                    "the blob comes as what changed since another",
                    expected="its own bytes",
                    received=f"an encoding against {encoding.base.hex()}",
                    action="send blobs as the contract says",
                )
            if size != expected.size and (encoding is None or size > expected.size):
                action = "send the state dict of the contract's model"
                raise BlobSizeMismatch(
                    "the blob has another length",
                    expected=f"{expected.size} bytes" if encoding is None else f"at most {expected.size} bytes",
                    received=f"{size} bytes",
                    action=action,
                )
            base = None if encoding is None else self._keeper.read(encoding.base)
            if encoding is not None and (base is None or base.size != expected.size):
                raise _unknown(encoding.base)
            if digest not in self._received and len(self._received) >= expected.count:
                action = "offer no more than the contract's trajectory"
                raise UnexpectedBlob(
                    "too many blobs in this round",
                    expected=f"at most {expected.count}",
                    received="one more",
                    action=action,
                )
            self._received.add(digest)
            incoming = self._incoming.pop(digest, None)
            if incoming is None or (incoming.encoding, incoming.size) != (encoding, size):
                # One form of a blob at a time: a peer cannot have memory taken by many.
                incoming = Incoming(digest, size, encoding, base)
            if incoming.held != offset:
                self._incoming[digest] = incoming
                action = "ask how much is held and go on from there"
                raise BlobTruncated(
                    "the upload does not go on where it ended",
                    expected=f"offset {incoming.held}",
                    received=f"offset {offset}",
                    action=action,
                )
            return incoming

    def name(self, incoming: Incoming, digest: bytes) -> None:
        """Gives an upload its digest, which was not known when it began."""
        with self._lock:
            if incoming.digest in self._received:
                self._received.discard(incoming.digest)
                self._received.add(digest)
            incoming.digest = digest

    def put_back(self, incoming: Incoming) -> None:
        """Keeps an upload that was cut, to be continued."""
        with self._lock:
            if incoming.digest in self._received:
                self._incoming[incoming.digest] = incoming

    def forget(self, incoming: Incoming) -> None:
        """Drops an upload that cannot be used, so that it does not count."""
        with self._lock:
            self._received.discard(incoming.digest)

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
            expected = self._expected
            waited_for = incoming.digest in self._received
        if expected is None or not waited_for:
            waiting = f"{expected.kind} of round {expected.round}" if expected else "no upload now"
            raise UnexpectedBlob(
                "nobody waits for this blob any more",
                expected=waiting,
                received=incoming.digest.hex(),
                action="wait for the round",
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
        expected="a blob of the active round",
        received=digest.hex(),
        action="send it first",
    )
