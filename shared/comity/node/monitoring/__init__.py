"""Metrics for Prometheus, on a port of their own (extra `metrics`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from comity.errors import InvalidValue
from comity.node.watchers import Watchers
from comity.transport.call_watchers import watching

if TYPE_CHECKING:
    from comity.node.config_sections import MetricsConfig
    from comity.node.monitoring.collector import Monitored

log = structlog.get_logger()


@contextmanager
def metrics(node: Monitored, watchers: Watchers, settings: MetricsConfig) -> Iterator[str]:
    """Serves a node's metrics until the block is left.

    Args:
        node: The node.
        watchers: Those of its sessions.
        settings: Where, and for whom.

    Yields:
        Where they are: `host:port`.

    Raises:
        InvalidValue: The extra `metrics` is not installed, or others than this machine could reach them unasked.
        AddressInUse: The address is in use.
    """
    if find_spec("prometheus_client") is None:
        raise InvalidValue(
            "metrics need more than is installed",
            expected="the extra metrics",
            received="no prometheus_client",
            action="pip install 'comity[metrics]'",
        )
    from comity.node.monitoring.collector import registry_of  # noqa: PLC0415 - extra `metrics`
    from comity.node.monitoring.door import serving  # noqa: PLC0415

    registry, latencies = registry_of(node)
    with ExitStack() as stack:
        stack.enter_context(watching(latencies.called))
        stack.enter_context(watchers.added(latencies))
        address = stack.enter_context(serving(registry, settings))
        log.info("metrics-ready", address=address)
        yield address
