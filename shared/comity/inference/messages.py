"""The protocol's messages, in a pool of their own.

Other programs have messages of the same names, and one process may import both: in the pool that all generated code shares,
the second would die at import. So they are made of a descriptor set, which `make protos` writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

SERVICE = "inference.GRPCInferenceService"

_FILE = "open_inference.binpb"


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for each in FileDescriptorSet.FromString(files(__package__).joinpath(_FILE).read_bytes()).file:
        pool.Add(each)
    # What else the server has, for reflection.
    for known in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    return pool


POOL = _pool()


def _classes(kind: Any) -> Iterator[Any]:
    """The class of a kind of message, and of those that are declared within it."""
    yield GetMessageClass(kind)
    for nested in kind.nested_types:
        yield from _classes(nested)


# For good: a class of a pool that nobody holds is garbage whenever there is no message of it, and one that protobuf hands
# out while the garbage collector is at it takes the process down.
_CLASSES = {
    each.DESCRIPTOR.full_name: each
    for kind in POOL.FindFileByName("open_inference.proto").message_types_by_name.values()
    for each in _classes(kind)
}


def message(name: str) -> Any:
    """The class of one of the protocol's messages."""
    return _CLASSES[f"inference.{name}"]


ModelInferRequest = message("ModelInferRequest")
ModelInferResponse = message("ModelInferResponse")
