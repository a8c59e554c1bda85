"""All checks, in the order in which a failure explains those that follow. Each is imported when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pkgutil import resolve_name

from comity.node.preflight.context import Context
from comity.node.preflight.rows import Row, of_error

Check = Callable[[Context], Iterator[Row]]

CHECKS: dict[str, str] = {
    "configuration": "machine:check_configuration",
    "role": "machine:check_role",
    "state_dir": "machine:check_state",
    "store": "machine:check_store",
    "disk": "machine:check_disk",
    "keys": "tls:check_keys",
    "certificate": "tls:check_certificate",
    "trust": "tls:check_trust",
    "listen": "listening:check_listen",
    "protocols": "computing:check_protocols",
    "device": "computing:check_device",
    "data": "work:check_data",
    "models": "named:check_models",
    "weights": "named:check_weights",
    "script": "work:check_script",
    "privacy": "privacy:check_privacy",
    "peers": "network:check_peers",
    "session": "draft:check_draft",
}
"""Every check, `module:function` by the name that its row has where it fails as a whole: first those that need no torch."""


def preflight(context: Context) -> Iterator[Row]:
    """Makes every check.

    Args:
        context: What is checked.

    Yields:
        What was found, as soon as it was.
    """
    for name, place in CHECKS.items():
        try:
            check: Check = resolve_name(f"{__package__}.{place}")
            yield from check(context)
        except Exception as error:  # noqa: BLE001 - a check that fails is a row, and the others go on
            yield of_error(name, error)
