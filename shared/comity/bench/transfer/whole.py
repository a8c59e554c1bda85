"""The baseline that most would write: the state dict serialized whole, as the bytes field of one gRPC message."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import safetensors.torch
import torch

from comity.tensors import State
from comity.transport.identity import Identity
from comity.wire.v1 import blobs_pb2 as pb

_SERVICE = "comity.bench.Whole"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _load_pickled(data: bytes) -> dict[str, torch.Tensor]:
    # Only what this benchmark's own other process has saved is read here.
    state: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), weights_only=True)  # noqa: TID251
    return state


def _save_pickled(state: State) -> bytes:
    file = io.BytesIO()
    torch.save(dict(state), file)  # noqa: TID251 - what is compared with
    return file.getvalue()


def _save_safetensors(state: State) -> bytes:
    return safetensors.torch.save(dict(state))


_SAVERS: Mapping[str, Callable[[State], bytes]] = {"safetensors": _save_safetensors, "torch.save": _save_pickled}
_LOADERS: Mapping[str, Callable[[bytes], dict[str, torch.Tensor]]] = {
    "safetensors": safetensors.torch.load,
    "torch.save": _load_pickled,
}
FORMATS = tuple(_SAVERS)
"""How a state dict becomes bytes."""


def serve(identity: Identity | None) -> tuple[grpc.Server, int]:
    """A plain gRPC server that takes whole state dicts; returns it with its port."""
    server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="whole"), options=_UNLIMITED)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(
            _handler(load), pb.BlobChunk.FromString, pb.BlobStat.SerializeToString
        )
        for name, load in _LOADERS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    if identity is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    server.start()
    return server, port


def _handler(load: Callable[[bytes], dict[str, torch.Tensor]]) -> Callable[[Any, grpc.ServicerContext], pb.BlobStat]:
    def take(request: pb.BlobChunk, context: grpc.ServicerContext) -> pb.BlobStat:
        del context
        return pb.BlobStat(held=len(load(request.data)), complete=True)

    return take


def upload(channel: grpc.Channel, state: State, format: str) -> float:
    """Seconds from a state dict here to its tensors there."""
    method = channel.unary_unary(f"/{_SERVICE}/{format}", pb.BlobChunk.SerializeToString, pb.BlobStat.FromString)
    began = time.perf_counter()
    method(pb.BlobChunk(data=_SAVERS[format](state)))
    return time.perf_counter() - began


def channel(identity: Identity | None, party: str, port: int) -> grpc.Channel:
    """A plain gRPC channel."""
    if identity is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}", _UNLIMITED)
    options = [*_UNLIMITED, ("grpc.ssl_target_name_override", party)]
    return grpc.secure_channel(f"127.0.0.1:{port}", identity.client_credentials(), options)
