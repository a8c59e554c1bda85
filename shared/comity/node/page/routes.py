"""What the page asks for."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from comity.node.page.pictures import Watched, node_picture, session_picture
from comity.web.assets import assets
from comity.web.events import changes

_FILES = ("page.css", "page.js", "charts.js")


def routes(node: Watched) -> list[BaseRoute]:
    """The page, its files, what changes, and a session at a time."""
    return [
        *assets("comity.node.page", "page.html", _FILES),
        Route("/changes", lambda request: changes(request, partial(node_picture, node))),
        Route("/sessions/{session}", partial(_session, node)),
    ]


def _session(node: Watched, request: Request) -> Response:
    return JSONResponse(session_picture(node, request.path_params["session"]))
