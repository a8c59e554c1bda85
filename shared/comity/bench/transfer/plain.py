"""The baselines over plain gRPC: the state dict whole in one message, as most would write it, and a bare stream of chunks."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import safetensors.torch
import torch

from comity.tensors import State
from comity.transport.blobs import CHUNK
from comity.transport.identity import Identity
from comity.wire.v1 import blobs_pb2 as pb

_SERVICE = "comity.bench.Plain"
_DISCARD = "Discard"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _save_pickled(state: State) -> bytes:
    file = io.BytesIO()
    torch.save(dict(state), file)  # noqa: TID251 - it is what the product is compared with
    return file.getvalue()


def _load_pickled(data: bytes) -> dict[str, torch.Tensor]:
    # Only what this benchmark's own other process has saved comes here.
    state: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), weights_only=True)  # noqa: TID251
    return state


_SAVERS: Mapping[str, Callable[[State], bytes]] = {
    "safetensors": lambda state: safetensors.torch.save(dict(state)),
    "torch.save": _save_pickled,
}
_LOADERS: Mapping[str, Callable[[bytes], dict[str, torch.Tensor]]] = {
    "safetensors": safetensors.torch.load,
    "torch.save": _load_pickled,
}
FORMATS = tuple(_SAVERS)
"""How a state dict becomes the bytes of a message."""


def serve(identity: Identity | None) -> tuple[grpc.Server, int]:
    """Starts the baselines' server; returns it with its port."""
    server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="plain"), options=_UNLIMITED)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(_taking(load), pb.BlobChunk.FromString, pb.BlobStat.SerializeToString)
        for name, load in _LOADERS.items()
    }
    handlers[_DISCARD] = grpc.stream_unary_rpc_method_handler(_discard, None, pb.BlobStat.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    if identity is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    server.start()
    return server, port


def _taking(load: Callable[[bytes], dict[str, torch.Tensor]]) -> Callable[[Any, grpc.ServicerContext], pb.BlobStat]:
    def take(request: pb.BlobChunk, context: grpc.ServicerContext) -> pb.BlobStat:
        del context
        return pb.BlobStat(held=len(load(request.data)), complete=True)

    return take


def _discard(request: Iterator[bytes], context: grpc.ServicerContext) -> pb.BlobStat:
    del context
    return pb.BlobStat(held=sum(map(len, request)), complete=True)


def channel(identity: Identity | None, party: str, port: int) -> grpc.Channel:
    """A channel to the baselines' server."""
    if identity is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}", _UNLIMITED)
    options = [*_UNLIMITED, ("grpc.ssl_target_name_override", party)]
    return grpc.secure_channel(f"127.0.0.1:{port}", identity.client_credentials(party), options)


def upload_whole(channel: grpc.Channel, state: State, format: str) -> float:
    """Seconds from a state dict here to its tensors there."""
    method = channel.unary_unary(f"/{_SERVICE}/{format}", pb.BlobChunk.SerializeToString, pb.BlobStat.FromString)
    began = time.perf_counter()
    method(pb.BlobChunk(data=_SAVERS[format](state)))
    return time.perf_counter() - began


def upload_chunks(channel: grpc.Channel, data: memoryview) -> float:
    """Seconds from bytes here to the other side's word that it has read and dropped them."""
    method: grpc.StreamUnaryMultiCallable[bytes, pb.BlobStat] = channel.stream_unary(
        f"/{_SERVICE}/{_DISCARD}", None, pb.BlobStat.FromString
    )
    began = time.perf_counter()
    method(bytes(data[begin : begin + CHUNK]) for begin in range(0, len(data), CHUNK))
    return time.perf_counter() - began
