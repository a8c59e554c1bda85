"""Traces, as a collector gets them over OTLP: one for each round, of all parties."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from structlog.testing import capture_logs

from comity.errors import InvalidValue
from comity.node.tracing import tracing
from comity.node.watchers import Watchers
from tests.cases import plain
from tests.e2e.network import network


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.spans: list[tuple[str, Any]] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self.lock:
            for group in request.resource_spans:
                about = {each.key: each.value.string_value for each in group.resource.attributes}
                for scope in group.scope_spans:
                    self.spans += [(about["service.instance.id"], span) for span in scope.spans]
        return pb.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector, pool = Collector(), ThreadPoolExecutor(2)
    server = grpc.server(pool)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        pool.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.mark.parametrize("protocol", ["teacher_votes", "federated_count"])
def test_a_round_is_one_trace_of_all_parties(protocol: str) -> None:
    script = plain(protocol).script
    with collecting() as (collector, endpoint):
        traces_to = {"endpoint": endpoint}
        with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), traces=traces_to) as nodes:
            nodes.run()
        # The nodes have stopped, and sent what was left.
        spans = collector.spans
    rounds = [(party, span) for party, span in spans if span.name.startswith("round ")]
    traces: dict[bytes, list[tuple[str, Any]]] = defaultdict(list)
    for party, span in rounds:
        traces[span.trace_id].append((party, span))
    assert len(traces) == script.session.rounds
    for found in traces.values():
        assert {party for party, _ in found} == set(script.party)
        (root,) = [span for _, span in found if not span.parent_span_id]
        assert {span.parent_span_id for _, span in found if span is not root} == {root.span_id}
        assert len({attributes(span)["comity.round"] for _, span in found}) == 1
        assert all(span.end_time_unix_nano >= span.start_time_unix_nano for _, span in found)
    calls = [span for _, span in spans if not span.name.startswith("round ")]
    assert {attributes(span)["rpc.side"] for span in calls} == {"client", "server"}
    known = {span.span_id for _, span in rounds}
    # Also a call is in the trace of its round, below what its party did in it.
    assert all(span.parent_span_id in known for span in calls if span.trace_id in traces)
    assert {span.trace_id for span in calls} <= set(traces)


def test_a_collector_that_is_away_is_said_once_by_each_node() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    script = plain("federated_count").script
    traces_to = {"endpoint": f"http://127.0.0.1:{port}"}
    with (
        capture_logs() as logs,
        TemporaryDirectory(prefix="e2e-") as name,
        network(script, Path(name), traces=traces_to) as nodes,
    ):
        nodes.run()
    away = [each for each in logs if each["event"] == "collector-away"]
    assert 0 < len(away) <= len(script.party)
    assert "sessions go on" in away[0]["action"]


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"traces\.endpoint"), tracing("localhost:4317", "clinic", "r", Watchers()):
        pass
