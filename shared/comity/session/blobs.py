"""The blobs of one session at one party: what it made, what it received, what is still coming."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from comity.contract import EgressKind
from comity.errors import BlobCorrupted, BlobSizeMismatch, BlobTruncated, UnexpectedBlob, UnknownBlob
from comity.session import faults
from comity.session.blob_files import BlobKeeper, BlobMemory
from comity.tensors import Blob


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
    """

    kind: EgressKind
    round: int
    size: int
    count: int
    verify: Callable[[Blob], None]
    until: int | None = None

    def fits(self, kind: EgressKind, round: int) -> bool:
        """Whether a blob of a kind and a round may come."""
        return kind == self.kind and self.round <= round <= (self.until or self.round)


class Incoming:
    """A blob that is being received into a buffer allocated once, hashed as it comes.

    Args:
        digest: Digest that the bytes must have.
        size: Their length.
    """

    def __init__(self, digest: bytes, size: int) -> None:
        self.digest = digest
        self.size = size
        self.held = 0
        # Not zeroed: nobody sees it before every byte is written and the digest is right.
        self._buffer = np.empty(size, np.uint8).data
        self._hasher = blake3()

    def write(self, piece: bytes | memoryview) -> None:
        """Appends a piece.

        Raises:
            BlobSizeMismatch: The piece runs past the announced length.
        """
        end = self.held + len(piece)
        if end > self.size:
            raise BlobSizeMismatch(
                "the blob runs past its announced length",
                expected=f"{self.size} bytes",
                received=f"{end} or more",
                action="send what was announced",
            )
        self._buffer[self.held : end] = piece
        self._hasher.update(piece)
        self.held = end

    def finish(self) -> Blob:
        """The whole blob.

        Raises:
            BlobTruncated: Bytes are missing; what came is kept.
            BlobCorrupted: The bytes have another digest; nothing of them is kept.
        """
        if self.held < self.size:
            action = "send the rest from there"
            raise BlobTruncated(
                "the blob ended early", expected=f"{self.size} bytes", received=f"{self.held} bytes", action=action
            )
        digest = self._hasher.digest()
        if digest != self.digest:
            self.held = 0
            self._hasher = blake3()
            raise BlobCorrupted(
                "the blob's bytes are not those announced",
                expected=self.digest.hex(),
                received=digest.hex(),
                action="send it again",
            )
        return Blob(digest, self._buffer)


class SessionBlobs:
    """The blobs of one session; no other session sees them.

    Args:
        keeper: Where whole blobs are kept; None for memory.
    """

    def __init__(self, keeper: BlobKeeper | None = None) -> None:
        self._lock = threading.Lock()
        self._keeper = keeper if keeper is not None else BlobMemory()
        self._published: dict[bytes, tuple[EgressKind, int]] = {}
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

    def publish(self, digest: bytes, kind: EgressKind, round: int) -> None:
        """Lets the other party have a blob that is kept here; no other can be asked for."""
        with self._lock:
            self._published[digest] = kind, round

    def published(self, digest: bytes) -> tuple[Blob, EgressKind, int]:
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

    def held(self, digest: bytes) -> tuple[int, bool]:
        """How many bytes of a blob are here, and whether no more need come."""
        with self._lock:
            if digest in self._settled:
                return 0, True
            if (blob := self._keeper.read(digest)) is not None:
                return blob.size, True
            incoming = self._incoming.get(digest)
            return (incoming.held if incoming else 0), False

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

    def receive(self, kind: EgressKind, round: int, digest: bytes, size: int, offset: int) -> Incoming:
        """Begins, or goes on with, the upload of a blob.

        The upload is taken out until `put_back` or `complete`, so two uploads of one blob never write to one buffer.

        Raises:
            UnexpectedBlob: No blob of this kind and round is expected, or no further one.
            BlobSizeMismatch: It is announced with a length that no such blob has.
            BlobTruncated: The upload does not go on where the bytes held end.
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
            if size != expected.size:
                action = "send the state dict of the contract's model"
                raise BlobSizeMismatch(
                    "the blob has another length",
                    expected=f"{expected.size} bytes",
                    received=f"{size} bytes",
                    action=action,
                )
            if digest not in self._received and len(self._received) >= expected.count:
                action = "offer no more than the contract's trajectory"
                raise UnexpectedBlob(
                    "too many blobs in this round",
                    expected=f"at most {expected.count}",
                    received="one more",
                    action=action,
                )
            self._received.add(digest)
            incoming = self._incoming.pop(digest, None) or Incoming(digest, size)
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
        expected="a blob of the round that is on",
        received=digest.hex(),
        action="send it first",
    )
