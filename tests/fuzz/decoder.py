"""What is fuzzed: one way in which bytes of somebody else become values."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Decoder:
    """A decoder, from bytes to whatever it makes of them.

    Attributes:
        name: Its name, and that of its folder in the corpus.
        decode: Takes bytes, and raises nothing but errors of the tree.
        seeds: Inputs that it takes without an error; what is tried is made of them.
        memory: Most bytes that it may take for an input of a few kilobytes, whatever the input claims.
    """

    name: str
    decode: Callable[[bytes], object]
    seeds: tuple[bytes, ...] = field(repr=False)
    memory: int = 4 * MEBIBYTE


@cache
def scratch() -> Path:
    """A folder of this process for decoders that read files."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def written(name: str, data: bytes) -> Path:
    """A file with these bytes."""
    path = scratch() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def of_message(kind: Any, use: Callable[[Any], object]) -> Callable[[bytes], object]:
    """A decoder of a message. What is none, gRPC itself refuses: no code of ours sees it."""

    def decode(data: bytes) -> object:
        try:
            message = kind.FromString(data)
        except DecodeError:
            return None
        return use(message)

    return decode


def filled(kind: Callable[[], Any]) -> tuple[bytes, ...]:
    """Messages with something in each field, one for each of several that exclude each other, and without each part."""
    whole = [_filled(kind(), choice) for choice in range(4)]
    cut = [_without(message, field.name) for message in whole for field, _ in _parts(message)]
    return tuple(dict.fromkeys(each.SerializeToString(deterministic=True) for each in (*whole, *cut)))


def _parts(message: Message) -> list[Any]:
    """The messages in a message, each with its field, and those in these."""
    found = [(field, value) for field, value in message.ListFields() if isinstance(value, Message)]
    return found + [part for _, value in found for part in _parts(value)]


def _without(message: Message, name: str) -> Message:
    """A copy without what fields of this name hold."""
    copied = type(message)()
    copied.CopyFrom(message)
    for each in (copied, *(value for _, value in _parts(copied))):
        if name in each.DESCRIPTOR.fields_by_name:
            each.ClearField(name)
    return copied


def _filled(message: Message, choice: int, depth: int = 0) -> Message:
    for each in message.DESCRIPTOR.fields:
        several = each.containing_oneof
        if several is not None and several.fields[choice % len(several.fields)].name != each.name:
            continue
        inner = getattr(message, each.name)
        if each.message_type is None:
            if isinstance(inner, int | float | str | bytes):
                setattr(message, each.name, _value(each))
            else:
                inner.append(_value(each))
        elif depth < 4 and not each.message_type.GetOptions().map_entry:
            if isinstance(inner, Message):
                inner.SetInParent()
            _filled(inner if isinstance(inner, Message) else inner.add(), choice, depth + 1)
    return message


def _value(each: Any) -> Any:
    if each.enum_type is not None:
        return each.enum_type.values[-1].number
    return {
        each.TYPE_STRING: "request",
        each.TYPE_BYTES: bytes(32),
        each.TYPE_DOUBLE: 0.5,
        each.TYPE_FLOAT: 0.5,
        each.TYPE_BOOL: True,
    }.get(each.type, 1)
