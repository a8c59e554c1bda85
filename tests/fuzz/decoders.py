"""Every decoder of what others send, hand over or have edited; the suite and `make fuzz` try those of this table."""

from __future__ import annotations

from functools import cache

from tests.fuzz import data, files, messages, records, tensors
from tests.fuzz.decoder import Decoder


@cache
def decoders() -> dict[str, Decoder]:
    """All of them by name. A protocol that is registered brings its own."""
    found = [each for module in (tensors, messages, records, files, data) for each in module.decoders()]
    return {each.name: each for each in found}
