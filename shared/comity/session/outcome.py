"""What a session ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blake3 import blake3

from comity.contract import Json
from comity.tensors import Blob


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the asking role has at the end.

    Attributes:
        models: The final model; where a protocol has several, in the order that its README states.
        metrics: The protocol's own numbers.
        own: The model of this party's own that it trained instead of the one that crosses, and keeps beside it; no part of
            the digest. None where there is none.
        joint: Where several initiators' outcomes are looked at as one, their digests.
    """

    models: tuple[Blob, ...]
    metrics: Mapping[str, Json]
    own: Blob | None = None
    joint: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """BLAKE3 (hexadecimal) of the final model in safetensors layout; of several, of the list of their digests."""
        if self.joint:
            return blake3(b"".join(map(bytes.fromhex, self.joint))).hexdigest()
        if len(self.models) == 1:
            return self.models[0].hex
        return blake3(b"".join(model.digest for model in self.models)).hexdigest()
