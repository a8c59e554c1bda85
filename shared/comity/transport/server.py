"""The server harness: identity, errors, health and reflection, once for all services."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection

from comity.errors import AddressInUse, InvalidValue
from comity.session.limits import Limits
from comity.transport import health
from comity.transport import retry as times
from comity.transport.addresses import is_loopback, split_address
from comity.transport.boundary import ErrorBoundary
from comity.transport.connections import Connections
from comity.transport.identity import Identity
from comity.transport.streams import Streams

log = structlog.get_logger()

_LIMITS = Limits()
_OWN_FILES = 256
"""Files that a node opens beside its peers' connections: its operator's calls, database, blobs, log."""
_MOST_CONNECTIONS = 4096
"""If nothing else is said: each takes forty kilobytes, also of a caller who says nothing."""


def options(limits: Limits) -> list[tuple[str, int]]:
    """Settings of a server's channels."""
    return [
        # Uploads come in chunks of a megabyte; nothing else is near it.
        ("grpc.max_receive_message_length", 8 * 2**20),
        ("grpc.so_reuseport", 0),
        # A caller that waits sends nothing but pings.
        ("grpc.http2.min_ping_interval_without_data_ms", times.milliseconds(times.KEEPALIVE_S / 2)),
        ("grpc.keepalive_permit_without_calls", 1),
        *times.keepalive(),
        ("grpc.max_allowed_incoming_connections", most_connections(limits)),
        # Of one line; more wait at the caller's end, where they stand in nobody's way.
        ("grpc.max_concurrent_streams", limits.streams_a_party + 2 * limits.calls_a_party),
        ("grpc.max_connection_idle_ms", times.milliseconds(limits.idle_s)),
        ("grpc.server_handshake_timeout_ms", times.milliseconds(limits.handshake_s)),
    ]


def most_connections(limits: Limits) -> int:
    """How many connections a server takes: fewer than the files that its process may open, which it needs for other things as well."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections or _MOST_CONNECTIONS
    return wanted if files == resource.RLIM_INFINITY else min(wanted, max(files - _OWN_FILES, files // 2))


class NodeServer:
    """A gRPC server with health, reflection and the error boundary.

    Args:
        identity: Certificate and trust; None serves plaintext, which only a Unix socket or loopback may.
        services: Full names of the services, for reflection and health; no other is served.
        only: The one party that may call; None for all whom the node trusts.
        limits: What it gives at most.
        pool: What reflection finds the services in; None for the pool that generated code shares.
    """

    def __init__(
        self,
        identity: Identity | None,
        services: list[str],
        *,
        only: str | None = None,
        limits: Limits = _LIMITS,
        pool: DescriptorPool | None = None,
    ) -> None:
        self._identity = identity
        self._pool = ThreadPoolExecutor(limits.calls, thread_name_prefix="rpc")
        self.streams = Streams()
        self._trust = identity.trusted() if identity is not None else None
        names = [*services, health.SERVICE, reflection.SERVICE_NAME]
        self._connections = Connections(most_connections(limits))
        boundary = ErrorBoundary(self._trust, names, only, limits, self.streams, self._connections)
        self._boundary = boundary
        self.streams.meanwhile = boundary.end_untrusted
        self.server = grpc.server(self._pool, interceptors=[boundary], options=options(limits))
        self._health = health.Health(services, self.streams)
        self._health.add_to(self.server)
        reflection.enable_server_reflection(names, self.server, pool=pool)

    def start(self, address: str, *, ready: bool = True) -> str:
        """Listens and serves.

        Args:
            address: `host:port` with port 0 for any free one, or `unix:path`.
            ready: Whether health is SERVING at once, and not only when `say_serving` is called.

        Returns:
            The address with the port that is used.

        Raises:
            InvalidValue: It is no address, or plaintext would leave this machine.
            AddressInUse: The address is in use.
        """
        port = self._bind(address)
        self.server.start()
        self._health.say(serving=ready)
        if address.startswith("unix:"):
            return address
        self._connections.start(port)
        return f"{address.rpartition(':')[0]}:{port}"

    def say_serving(self, *, serving: bool) -> None:
        """Has health say from now on that it serves, or that it does not."""
        self._health.say(serving=serving)

    def take_limits(self, limits: Limits) -> None:
        """Goes by other limits from now on.

        Args:
            limits: What it gives at most; see `RESTART_ONLY` of the limits for those that it goes on with as they were.
        """
        self._boundary.take_limits(limits)

    def revoke(self, revoked: frozenset[str]) -> None:
        """Goes by another deny-list from now on; those who are on it, and those who are trusted no more, are cut off.

        Args:
            revoked: Fingerprints of certificates that are refused though trusted.
        """
        if self._trust is not None:
            self._trust.revoke(revoked)
        self._boundary.end_untrusted()

    def _bind(self, address: str) -> int:
        if not address.startswith("unix:"):
            split_address(address)
            if self._identity is None and not is_loopback(address):
                raise InvalidValue(
                    "plaintext is for loopback only",
                    expected="127.0.0.1:port",
                    received=address,
                    action="configure [tls]",
                )
        try:
            if self._identity is None:
                return self.server.add_insecure_port(address)
            return self.server.add_secure_port(address, self._identity.server_credentials(self._trust))
        except RuntimeError as error:
            action = "stop what listens there, or configure another address"
            raise AddressInUse(
                "cannot listen", expected="a free address of this machine", received=address, action=action
            ) from error

    def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, takes no new calls and gives those that are active `grace_s` seconds to end."""
        self._health.say(serving=False)
        self.server.stop(grace_s).wait()
        self.streams.stop()
        self._boundary.stalls.stop()
        self._connections.stop()
        self._pool.shutdown()
