"""The service that a protocol whose sessions predict names among its extensions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from comity.errors import InvalidValue
from comity.inference.grpc_door import served
from comity.inference.offers import Offers
from comity.inference.settings import DoorSettings, address_in
from comity.protocol.services import RunningService, ServiceContext
from comity.web import require_web
from comity.web.token import token_in


@contextmanager
def predictions(context: ServiceContext) -> Iterator[RunningService | None]:
    """Serves predictions for this node's applications; roles get the `Offers`, and put in what they predict.

    Args:
        context: The service's; its settings have `predictions`, a `DoorSettings`, or are None.

    Raises:
        InvalidValue: It is no address, or others than this machine could reach plaintext, or the extra `web` is missing.
        AddressInUse: The address is in use.
    """
    settings = getattr(context.settings, "predictions", None) or DoorSettings()
    listen = address_in(settings, context.state_dir)
    if len(listen) > len("unix:") + 100 and listen.startswith("unix:"):
        raise InvalidValue(
            "the path is too long for a Unix socket",
            expected="at most 100 characters",
            received=listen,
            action="configure predictions.listen",
        )
    offers, token = Offers(settings.names), token_in(context.state_dir)
    with ExitStack() as stack:
        address = stack.enter_context(served(offers, listen, context, token, settings.drain_s))
        if settings.http:
            require_web()
            from comity.inference.http_door import MAX_BODY, routes  # noqa: PLC0415 - an extra
            from comity.web.server import serving  # noqa: PLC0415

            page = stack.enter_context(serving(routes(offers), settings.http, token, max_body=MAX_BODY))
            address = f"{address}, http://{page.address}"
        yield RunningService(address, offers)
