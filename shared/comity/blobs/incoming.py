"""A blob that is on its way in."""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from comity.errors import BlobCorrupted, BlobSizeMismatch, BlobTruncated
from comity.tensors import Blob, delta
from comity.tensors.delta import Encoding


class Incoming:
    """A blob that is being received into a buffer allocated once, hashed as it comes.

    Args:
        digest: The blob's digest.
        size: Length of what comes, in bytes.
        encoding: How it comes; None for the blob's own bytes.
        base: The blob that the encoding names.
    """

    def __init__(self, digest: bytes, size: int, encoding: Encoding | None = None, base: Blob | None = None) -> None:
        self.digest = digest
        self.size = size
        self.encoding = encoding
        self.held = 0
        self.cut = 0.0
        """When it was last cut, on the monotonic clock."""
        self._base = base
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
            TensorMismatch: They are no encoding against the base.
        """
        if self.held < self.size:
            action = "send the rest from there"
            raise BlobTruncated(
                "the blob ended early", expected=f"{self.size} bytes", received=f"{self.held} bytes", action=action
            )
        self._require_digest(self._hasher.digest(), self.encoding.digest if self.encoding else self.digest)
        if self._base is None:
            return Blob(self.digest, self._buffer)
        blob = Blob.of(delta.decode(self._buffer, self._base.data))
        self._require_digest(blob.digest, self.digest)
        return blob

    def _require_digest(self, digest: bytes, announced: bytes) -> None:
        if digest != announced:
            self.held = 0
            self._hasher = blake3()
            raise BlobCorrupted(
                "the blob's bytes are not those announced",
                expected=announced.hex(),
                received=digest.hex(),
                action="send it again",
            )
