"""What every request passes: where it comes from, its token, its size; and what every answer carries."""

from __future__ import annotations

import asyncio
import re
import secrets

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comity.errors import ComityError
from comity.web.status import http_status

log = structlog.get_logger()

_HEADERS = {
    # What a page shows is its own: its files come from here alone, no script or style stands in the text, and no other
    # page frames it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The token is in the address.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_PORT = re.compile(r":\d*$")
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}


class _TooLong(Exception):
    """A request has a longer body than any may have."""


class Entrance:
    """Lets requests in that have the token, as the first part of their path or as `Authorization: Bearer TOKEN`.

    An error of the tree becomes its status and one line of text; anything else becomes one that tells nothing and is a
    line of the log. The application sees a path without the token, and `root_path` with it.

    Args:
        app: What is behind.
        token: The token.
        max_body: Longest body of a request, in bytes.

    Attributes:
        stopping: Set when the server ends; what goes on for long ends by it. Requests have it as `scope["stopping"]`.
    """

    def __init__(self, app: ASGIApp, token: str, max_body: int) -> None:
        self._app = app
        self._token = token.encode("ascii")
        self._max_body = max_body
        self.stopping = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return
        scope = {**scope, "stopping": self.stopping}
        refusal, inside = self._admitted(scope)
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if refusal is not None:
            await refusal(scope, receive, dressed)
            return
        try:
            await self._app(inside, self._limited(receive), dressed)
        except Exception as error:  # noqa: BLE001 - the boundary
            answer = self._explained(error, scope)
            # What was cut in the middle says so by its end.
            if not started:
                await answer(scope, receive, dressed)

    def _admitted(self, scope: Scope) -> tuple[Response | None, Scope]:
        """What a request is answered that does not come in, or None; and the request as it is seen inside."""
        headers = Headers(scope=scope)
        host = _PORT.sub("", headers.get("host", "localhost").lower())
        if host not in _HOSTS:
            # Somebody else's name that was made to lead here.
            what = "this page is for its own machine: expected localhost in the address, received another name"
            return _line(403, f"{what}; reach it from elsewhere through ssh -L"), scope
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._fits(given.strip()):
            return None, scope
        first, slash, _ = scope["path"].removeprefix("/").partition("/")
        if not self._fits(first):
            what = "another" if first or given else "none"
            action = "open the whole address, as it was given"
            return _line(403, f"a page needs its token: expected it in the address, received {what}; {action}"), scope
        root = f"{scope.get('root_path', '')}/{first}"
        if not slash:
            return RedirectResponse(f"{root}/", 307), scope
        return None, {**scope, "root_path": root}

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token)

    def _limited(self, receive: Receive) -> Receive:
        length = 0

        async def read() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > self._max_body:
                raise _TooLong
            return message

        return read

    def _explained(self, error: Exception, scope: Scope) -> Response:
        method = f"{scope['method']} {scope['path'].rpartition('/')[2] or '/'}"
        if isinstance(error, ComityError):
            log.warning("page-refused", method=method, error=error.reason(), detail=str(error))
            return _line(http_status(error), str(error))
        if isinstance(error, _TooLong):
            return _line(413, f"the request is too long: expected at most {self._max_body} bytes; send less at a time")
        log.error("page-failed", method=method, exc_info=error)
        return _line(500, "the node failed at this request; its log says more")


def _line(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)
