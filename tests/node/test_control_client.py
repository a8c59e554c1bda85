"""The operator's end of the control service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from comity.node.control_client import ControlClient
from comity.wire.v1 import control_pb2 as pb
from comity.wire.v1 import control_pb2_grpc


class Answers(control_pb2_grpc.ControlServicer):
    """Answers with more than gRPC takes by default."""

    def Call(self, request: pb.CallRequest, context: grpc.ServicerContext) -> pb.CallReply:  # noqa: N802
        return pb.CallReply(fields="{}", data=bytes(9 * 2**20))


def test_a_big_picture_is_taken() -> None:
    with ThreadPoolExecutor(1) as pool, TemporaryDirectory() as folder:
        server = grpc.server(pool)
        control_pb2_grpc.add_ControlServicer_to_server(Answers(), server)
        url = f"unix:{Path(folder) / 'control.sock'}"
        server.add_insecure_port(url)
        server.start()
        try:
            with ControlClient(url) as control:
                assert len(control.call("s", "labels.sample")[1]) == 9 * 2**20
        finally:
            server.stop(None).wait()
