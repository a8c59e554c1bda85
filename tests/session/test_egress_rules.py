"""No field that could carry data is without a rule."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from comity.session.egress_rules import FIELD_RULES
from comity.wire import v1

CARRIERS = {FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
OPEN_ENDED = {"google.protobuf.Any", "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.BytesValue"}


def fields_that_could_carry_data() -> Iterator[str]:
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"{v1.__name__}.{module.name}").DESCRIPTOR
            for message in descriptor.message_types_by_name.values():
                yield from _of(message)


def _of(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        is_open = field.message_type is not None and field.message_type.full_name in OPEN_ENDED
        if field.type in CARRIERS or is_open:
            yield field.full_name
    for nested in message.nested_types:
        yield from _of(nested)


def test_every_field_has_a_rule() -> None:
    assert set(fields_that_could_carry_data()) == set(FIELD_RULES)
