"""Addresses, `host:port`."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import quote

from comity.errors import InvalidValue

_LAST_PORT = 65535


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`.

    Raises:
        InvalidValue: It is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > _LAST_PORT:
        raise InvalidValue(
            "not an address", expected="host:port", received=address, action="correct it in the configuration"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise InvalidValue(
            "not an address",
            expected="host:port, with an IPv6 address in brackets",
            received=address,
            action=f"write [{host}]:{port}, or [{address}]:5500 where no port was meant",
        )
    return host.strip("[]"), int(port)


def socket_url(path: Path) -> str:
    """The address of a Unix socket. gRPC takes it for a URL, in which `%`, `#` and `?` have a meaning of their own."""
    return f"unix:{quote(str(path))}"


def is_loopback(address: str) -> bool:
    """Whether an address can be reached from this machine only."""
    host, _ = split_address(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
