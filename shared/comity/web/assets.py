"""A page's own files, which lie in a package."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from functools import partial
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def assets(package: str, page: str, others: Sequence[str] = ()) -> list[Route]:
    """Routes of a page and its files.

    Args:
        package: Where they lie, for example `comity.node.page`.
        page: The file that `/` is.
        others: Files that the page names, by their names.
    """
    return [
        Route("/", partial(_file, package, page)),
        *(Route(f"/{name}", partial(_file, package, name)) for name in others),
    ]


def _file(package: str, name: str, request: Request) -> Response:
    del request
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(files(package).joinpath(name).read_bytes(), media_type=kind)
