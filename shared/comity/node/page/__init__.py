"""The page on which people look at a node: read-only, live, on its own machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from comity.web import require_web
from comity.web.token import token_in

if TYPE_CHECKING:
    from comity.node.page.pictures import Watched
    from comity.web.server import Served

log = structlog.get_logger()


@contextmanager
def page(node: Watched, listen: str, folder: Path) -> Iterator[Served]:
    """Serves the page of a node until the block is left.

    Args:
        node: The node.
        listen: Where, on loopback or a Unix socket.
        folder: Where its token is kept.

    Yields:
        Where.

    Raises:
        InvalidValue: The extra `web` is not installed, or others than this machine could reach it.
        AddressInUse: The address is in use.
        StorageFailed: Its token cannot be kept.
    """
    require_web()
    from comity.node.page.routes import routes  # noqa: PLC0415 - extra `web`
    from comity.web.server import serving  # noqa: PLC0415

    with serving(routes(node), listen, token_in(folder)) as served:
        # Not with its token, which whoever reads logs need not have.
        log.info("page-ready", address=served.address)
        yield served
