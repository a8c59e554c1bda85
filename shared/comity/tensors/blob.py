"""A blob: bytes under the digest that names them."""

from __future__ import annotations

from dataclasses import dataclass, field

from blake3 import blake3


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of `data`, 32 bytes."""
    return blake3(data).digest()


@dataclass(frozen=True, slots=True)
class Blob:
    """Immutable bytes under their digest.

    Attributes:
        digest: BLAKE3 of the bytes, 32 bytes.
        data: The bytes; nobody writes to them once the blob exists.
    """

    digest: bytes
    data: memoryview = field(repr=False)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Blob:
        """Takes ownership of `data` and hashes it."""
        view = memoryview(data).cast("B")
        return cls(digest_of(view), view)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.data.nbytes

    @property
    def hex(self) -> str:
        """The digest, hexadecimal."""
        return self.digest.hex()
