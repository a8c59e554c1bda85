"""Pages and HTTP doors of a node, for people and programs on its own machine (extra `web`: Starlette and uvicorn).

Whoever has one to serve makes its routes and enters `serving` (`comity.web.server`): it listens on loopback or a Unix
socket, in a thread of its own, lets nobody in without the token, and ends with the block. `token_in` keeps a token over
restarts. `comity.web.assets` serves a page's files, `comity.web.events` what changes while somebody looks. Who imports
these calls `require_web` first, so that somebody without the extra is told.
"""

from __future__ import annotations

from importlib.util import find_spec

from comity.errors import InvalidValue


def require_web() -> None:
    """Checks that the extra is installed.

    Raises:
        InvalidValue: It is not.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InvalidValue(
            "a page needs more than is installed",
            expected="the extra web",
            received=f"no {' and no '.join(missing)}",
            action="pip install 'comity[web]'",
        )
