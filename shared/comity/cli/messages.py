"""Messages as JSON objects: as protobuf has them, but with whole numbers as numbers."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def fields_of(message: Message) -> dict[str, Any]:
    """The fields of a message by name; one that is absent is None."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found[field.name] = {key: _plain(value[key]) for key in sorted(value)}
        elif field.is_repeated:
            found[field.name] = [_plain(each) for each in value]
        elif field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    return fields_of(value) if isinstance(value, Message) else value
