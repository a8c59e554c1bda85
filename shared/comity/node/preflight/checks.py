"""All checks, in the order in which a failure explains those that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from comity.node.preflight.context import Context
from comity.node.preflight.draft import check_draft
from comity.node.preflight.machine import (
    check_configuration,
    check_device,
    check_disk,
    check_protocols,
    check_role,
    check_state,
    check_store,
)
from comity.node.preflight.network import check_listen, check_peers
from comity.node.preflight.rows import Row, of_error
from comity.node.preflight.tls import check_certificate, check_keys, check_trust
from comity.node.preflight.work import check_data, check_script

Check = Callable[[Context], Iterator[Row]]

CHECKS: dict[str, Check] = {
    "configuration": check_configuration,
    "protocols": check_protocols,
    "role": check_role,
    "state_dir": check_state,
    "store": check_store,
    "disk": check_disk,
    "keys": check_keys,
    "certificate": check_certificate,
    "trust": check_trust,
    "listen": check_listen,
    "device": check_device,
    "data": check_data,
    "script": check_script,
    "peers": check_peers,
    "session": check_draft,
}
"""Every check, by the name that its row has where it fails as a whole."""


def preflight(context: Context) -> Iterator[Row]:
    """Makes every check.

    Args:
        context: What is checked.

    Yields:
        What was found, as soon as it was.
    """
    for name, check in CHECKS.items():
        try:
            yield from check(context)
        except Exception as error:  # noqa: BLE001 - a check that fails is a row, and the others go on
            yield of_error(name, error)
