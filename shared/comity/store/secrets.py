"""Where a node has its own secret and its receipt key from."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from comity.errors import StorageFailed
from comity.ledger.keys import ReceiptKey, SeedKey

FILE_NAME = "secret"
"""The secret's name in a node's `state_dir`."""


class Secrets(Protocol):
    """What nobody else may know of a party; always the same, or its sessions do not go on as they began."""

    def own(self) -> bytes:
        """What its own randomness, of batches and of noise, follows from."""

    def receipt_key(self) -> ReceiptKey:
        """What its statements are signed with."""


class GivenSecrets:
    """`Secrets` that follow from a secret that somebody gives: a configuration, a simulation.

    Args:
        secret: The secret.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def own(self) -> bytes:
        """See `Secrets.own`."""
        return self._secret

    def receipt_key(self) -> ReceiptKey:
        """See `Secrets.receipt_key`."""
        return SeedKey.of_secret(self._secret)


def secrets_in(folder: Path) -> Secrets:
    """The `Secrets` that follow from the file in a `state_dir`, which is made at first use, for its owner alone.

    Raises:
        StorageFailed: It cannot be read or made.
    """
    path = folder / FILE_NAME
    try:
        if not path.exists():
            part = path.with_suffix(".part")
            part.touch(mode=0o600)
            with part.open("wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                # A secret that is lost with the power has signed for its node already.
                os.fsync(file.fileno())
            part.replace(path)
        return GivenSecrets(path.read_bytes())
    except OSError as error:
        raise StorageFailed(
            f"{path} cannot be used",
            expected="the node's secret, or a folder to make it in",
            received=error.strerror or error,
            action="make it readable and writable for the node's user",
        ) from error
