"""Every decoder of what others send, hand over or have edited; the suite and `make fuzz` try those of this table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from comity.protocol.registry import protocols
from tests.fuzz import data, files, messages, records, tensors
from tests.fuzz.decoder import Decoder


@cache
def decoders() -> dict[str, Decoder]:
    """All of them by name. A protocol that is registered brings its own: messages, and `tests/protocols/NAME/decoders.py`."""
    found = [each for module in (tensors, messages, records, files, data, *_of_slices()) for each in module.decoders()]
    return {each.name: each for each in found}


def _of_slices() -> Iterator[ModuleType]:
    for definition in protocols():
        package = f"tests.protocols.{definition.name}"
        if find_spec(package) is not None and find_spec(f"{package}.decoders") is not None:
            yield import_module(f"{package}.decoders")
