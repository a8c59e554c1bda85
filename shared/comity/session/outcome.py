"""What a session ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blake3 import blake3

from comity.contract import Contract, Json, ModelSpec
from comity.errors import InvalidValue
from comity.tensors import Blob


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A model that no contract names.

    Attributes:
        blob: Its tensors.
        spec: What builds it here.
    """

    blob: Blob
    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the asking role has at the end.

    Attributes:
        models: The final model; where a protocol has several, in the order that its README states.
        metrics: The protocol's own numbers.
        names: Which of the contract's models each of them is; left out where they are those of the contract, in its order.
        own: The model of this party's own that it trained instead of the one that crosses, and keeps beside it; no part of
            the digest. None where there is none.
        joint: Where several initiators' outcomes are looked at as one, their digests.
    """

    models: tuple[Blob, ...]
    metrics: Mapping[str, Json]
    names: tuple[str, ...] = ()
    own: OwnModel | None = None
    joint: tuple[str, ...] = ()

    def named(self, contract: Contract) -> dict[str, Blob]:
        """The models, by what the contract calls them.

        Raises:
            InvalidValue: The protocol does not say which is which.
        """
        names = self.names or tuple(contract.models)
        if not self.names and not names:
            # A contract without models leaves what its protocol makes, of which nothing is known.
            return {}
        if len(names) != len(self.models) or not {*names} <= {*contract.models}:
            raise InvalidValue(
                f"{contract.protocol} does not say which models a session left",
                expected=f"a name for each, of {', '.join(contract.models) or 'none'}",
                received=f"{len(self.models)} models, {', '.join(names) or 'no names'}",
                action="name them in the role's Outcome",
            )
        return dict(zip(names, self.models, strict=True))

    @property
    def digest(self) -> str:
        """BLAKE3 (hexadecimal) of the final model in safetensors layout; of several, of the list of their digests."""
        if self.joint:
            return blake3(b"".join(map(bytes.fromhex, self.joint))).hexdigest()
        if len(self.models) == 1:
            return self.models[0].hex
        return blake3(b"".join(model.digest for model in self.models)).hexdigest()
