"""Traces for OpenTelemetry (extra `otel`): one for each round of a session, with what every party did in it.

Nothing crosses for that: the identifiers of a round's trace follow from the contract's hash, which all parties have. Each
sends its own spans to its own collector; where those come together, a round is one trace.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog
from blake3 import blake3

from comity.contract import Contract, Json
from comity.errors import InvalidValue
from comity.node.watchers import SessionWatcher, Watchers
from comity.protocol.registry import protocol
from comity.session import log_context
from comity.session.events import Event
from comity.transport.call_watchers import OK, Call, watching

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = structlog.get_logger()

_GRPC = "http://", "https://"
_END_MS = 5000


@contextmanager
def tracing(endpoint: str, party: str, role: str, watchers: Watchers) -> Iterator[None]:
    """Sends a party's traces to a collector until the block is left.

    Args:
        endpoint: The collector, for OTLP over gRPC; empty for none.
        party: The party.
        role: What its node does.
        watchers: Those of its sessions.

    Raises:
        InvalidValue: The extra is not installed, or it is no address.
    """
    if not endpoint:
        yield
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise InvalidValue(
            "[traces] needs more than is installed",
            expected="the extra otel",
            received="no opentelemetry",
            action="pip install 'comity[otel]'",
        )
    if not endpoint.startswith(_GRPC):
        raise InvalidValue(
            "traces.endpoint is no address of a collector",
            expected="http://HOST:4317 or https://HOST:4317",
            received=endpoint,
            action="name the port at which it takes OTLP over gRPC",
        )
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - extra `otel`

    # What is wrong with the collector is said once, by `_Saying`.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        tracer = Tracer(exporter, party, role)
        stack.callback(tracer.close)
        stack.enter_context(watching(tracer.called))
        stack.enter_context(watchers.added(tracer))
        yield


class Tracer(SessionWatcher):
    """Makes spans of rounds and calls.

    Args:
        exporter: Where they go.
        party: This party.
        role: What its node does.
    """

    def __init__(self, exporter: SpanExporter, party: str, role: str) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - extra `otel`
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._party = party
        about = {"service.name": "comity", "service.instance.id": party, "comity.role": role}
        self._resource = Resource.create(about)
        self._spans = BatchSpanProcessor(_saying_once(exporter))
        self._lock = threading.Lock()
        self._contracts: dict[str, Contract] = {}
        self._since: dict[str, int] = {}

    def close(self) -> None:
        """Sends what is left."""
        self._spans.force_flush(_END_MS)
        self._spans.shutdown()  # type: ignore[no-untyped-call]

    def entered(self, contract: Contract, party: str) -> None:
        """Begins the round that a session is in."""
        del party
        with self._lock:
            self._contracts[contract.session], self._since[contract.session] = contract, time.time_ns()

    def happened(self, contract: Contract, event: Event) -> None:
        """Makes the span of a round that is finished."""
        if event.kind != "round-finished":
            return
        now = int(event.time.timestamp() * 1e9)
        with self._lock:
            began, self._since[contract.session] = self._since.get(contract.session, now), now
        root, own = _root(contract, event.round), _of_party(contract, event.round, self._party)
        is_center = self._party == _center(contract, self._party)
        crossed = {
            name: size for name in ("bytes_sent", "bytes_received") if isinstance(size := event.fields.get(name), int)
        }
        self._spans.on_end(
            self._span(
                f"round {event.round}" if is_center else f"round {event.round} at {self._party}",
                contract,
                event.round,
                (root if is_center else own, None if is_center else root),
                (began, now),
                crossed,
            )
        )

    def ended(self, session: str, state: str, why: Mapping[str, Json]) -> None:
        """Forgets a session."""
        del state, why
        with self._lock:
            self._contracts.pop(session, None)
            self._since.pop(session, None)

    def called(self, call: Call) -> None:
        """Makes the span of a call that belongs to a session."""
        with self._lock:
            contract = self._contracts.get(call.session)
        round = log_context.round_of(call.session)
        if contract is None or round is None:
            return
        is_center = self._party == _center(contract, self._party)
        above = _root(contract, round) if is_center else _of_party(contract, round, self._party)
        one = _digest("call", self._party, call.method, call.side, str(call.began_ns), str(id(call)))
        times = (call.began_ns, call.began_ns + int(call.seconds * 1e9))
        said = {"rpc.system": "grpc", "rpc.method": call.method, "rpc.side": call.side, "rpc.ending": call.ending}
        self._spans.on_end(
            self._span(call.method, contract, round, (one, above), times, said, failed=call.ending != OK)
        )

    def _span(  # noqa: PLR0913 - what a span is
        self,
        name: str,
        contract: Contract,
        round: int,
        ids: tuple[int, int | None],
        times: tuple[int, int],
        fields: Mapping[str, str | int],
        *,
        failed: bool = False,
    ) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - extra `otel`
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415

        trace = int.from_bytes(blake3(f"{contract.hash} {round}".encode()).digest(16), "big")

        def context(span: int) -> SpanContext:
            return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        own, above = ids
        side = fields.get("rpc.side")
        kind = {"client": SpanKind.CLIENT, "server": SpanKind.SERVER}.get(str(side), SpanKind.INTERNAL)
        about: dict[str, str | int] = {
            "comity.session": contract.session,
            "comity.round": round,
            "comity.protocol": contract.protocol,
            "comity.party": self._party,
        }
        return ReadableSpan(
            name,
            context(own),
            None if above is None else context(above),
            self._resource,
            {**about, **fields},
            kind=kind,
            start_time=times[0],
            end_time=times[1],
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        )


def _center(contract: Contract, party: str) -> str:
    """The party whose span of a round is above the others': the one that all others talk to."""
    definition = protocol(contract.protocol)
    acceptors = contract.acceptors
    if definition.center == definition.acceptor:
        return acceptors[0]
    return contract.initiator or ("" if party in acceptors else party)


def _root(contract: Contract, round: int) -> int:
    return _digest("root", contract.hash, str(round))


def _of_party(contract: Contract, round: int, party: str) -> int:
    return _digest("round", contract.hash, str(round), party)


def _digest(*what: str) -> int:
    """A span's identifier: 8 bytes, and not 0."""
    return int.from_bytes(blake3("\0".join(what).encode()).digest(8), "big") or 1


def _saying_once(exporter: SpanExporter) -> SpanExporter:
    """The exporter, with one line in the log when its collector is away, and one when it is back."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # noqa: PLC0415 - extra `otel`

    class Saying(SpanExporter):
        is_away = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            found = exporter.export(spans)
            is_away = found is not SpanExportResult.SUCCESS
            if is_away and not self.is_away:
                action = "correct traces.endpoint, or bring it back; sessions go on, and these spans are lost"
                log.warning("collector-away", spans=len(spans), action=action)
            elif self.is_away and not is_away:
                log.info("collector-back")
            self.is_away = is_away
            return found

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Saying()
