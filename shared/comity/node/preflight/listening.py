"""Where peers reach the node."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from comity.errors import AddressInUse, InvalidValue
from comity.node.preflight.context import Context
from comity.node.preflight.rows import Row
from comity.transport.addresses import is_loopback, split_address


def check_listen(context: Context) -> Iterator[Row]:
    """The node can listen where its configuration says, or does so already."""
    address = context.config.listen
    if not context.helps:
        yield Row("listen", "skipped", f"a {context.role} only opens connections: it does not listen")
        return
    if not address:
        raise InvalidValue(
            "listen is missing",
            expected="host:port",
            received="nothing",
            action=f"a {context.role} node must be reachable",
        )
    split_address(address)
    if not context.identity.is_secure and not is_loopback(address):
        raise InvalidValue(
            "plaintext is for loopback only",
            expected="127.0.0.1:port",
            received=address,
            action="configure [tls]",
        )
    if context.running is not None and context.running.address:
        yield Row("listen", "passed", f"the node listens at {context.running.address}")
        return
    _require_free(address)
    yield Row("listen", "passed", f"{address} is free")


def _require_free(address: str) -> None:
    host, port = split_address(address)
    action = "configure an address of this machine, for example 0.0.0.0:5500 for all of them"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server does: connections that are being closed do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            action = "stop what listens there, or configure another port"
        elif error.errno == errno.EACCES:
            action = "configure a port from 1024 on"
        raise AddressInUse(
            "the node cannot listen",
            expected="a free address of this machine",
            received=f"{address}: {error.strerror}",
            action=action,
        ) from error
