"""A server without batching, to compare with: a model behind gRPC that answers each request by a pass of its own.

`python -m …plain_server MODEL SHAPE OUTPUTS` prints its address, and serves until its standard input ends.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import torch

from comity.models import build

SERVICE = "comity.bench.Plain"
PASS, ECHO = "Pass", "Echo"
"""Methods, bytes to bytes: the model's outputs for 8-bit features, and the same bytes."""


def serve(name: str, shape: tuple[int, ...], outputs: int, hidden: int) -> None:
    """Serves until standard input ends."""
    torch.set_num_threads(1)
    options = {"hidden": hidden} if hidden else {}
    model = build(name, input_shape=shape, outputs=outputs, options=options, seed=0).eval()
    one = threading.Lock()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        del context
        steps = torch.frombuffer(bytearray(request), dtype=torch.uint8).view(-1, *shape)
        with one, torch.inference_mode():
            found: bytes = model(steps.float() / 255).numpy().tobytes()
        return found

    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        del context
        return request

    server = grpc.server(ThreadPoolExecutor(64))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        PASS: grpc.unary_unary_rpc_method_handler(answer),
        ECHO: grpc.unary_unary_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    _, model_name, sizes, count, width = sys.argv
    serve(model_name, tuple(int(each) for each in sizes.split("x")), int(count), int(width))
