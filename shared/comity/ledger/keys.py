"""What a party's statements are signed with."""

from __future__ import annotations

from typing import Protocol

from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class ReceiptKey(Protocol):
    """A party's Ed25519 key; its private half need not leave the place where it is kept."""

    @property
    def public_key(self) -> str:
        """The public half, hexadecimal."""

    def sign(self, data: bytes) -> bytes:
        """The signature over some bytes.

        Raises:
            StorageError: The key cannot be used now.
        """


class SeedKey:
    """A `ReceiptKey` that follows from 32 bytes.

    Args:
        seed: The bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def of_secret(cls, secret: bytes) -> SeedKey:
        """The key that follows from a node's own secret."""
        return cls(blake3(secret, derive_key_context="comity receipt key").digest())

    @property
    def public_key(self) -> str:
        """See `ReceiptKey.public_key`."""
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return raw.hex()

    def sign(self, data: bytes) -> bytes:
        """See `ReceiptKey.sign`."""
        return self._key.sign(data)
