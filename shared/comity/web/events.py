"""What changes while somebody looks, as server-sent events; a browser reads them with `EventSource`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

_TRY_AGAIN_MS = 2000
_ALIVE_S = 15.0
"""After how long without news a comment is sent, which shows that the line is there, in seconds."""


def changes(request: Request, read: Callable[[], Mapping[str, Any]], every_s: float = 1.0) -> StreamingResponse:
    """An answer that goes on: one event for each part of a picture that is another than it was, named after the part.

    It ends when nobody listens any more, or when the server is stopped.

    Args:
        request: Who looks.
        read: Takes the picture, in a thread: its parts by name, each of which JSON can say.
        every_s: How often, in seconds.
    """
    return StreamingResponse(_changes(request.scope["stopping"], read, every_s), media_type="text/event-stream")


async def _changes(
    stopping: asyncio.Event, read: Callable[[], Mapping[str, Any]], every_s: float
) -> AsyncIterator[str]:
    yield f"retry: {_TRY_AGAIN_MS}\n\n"
    seen: dict[str, str] = {}
    silent_s = 0.0
    while not stopping.is_set():
        picture = await run_in_threadpool(read)
        written = {name: json.dumps(part, allow_nan=False) for name, part in picture.items()}
        news = [(name, text) for name, text in written.items() if seen.get(name) != text]
        for name, text in news:
            yield f"event: {name}\ndata: {text}\n\n"
        seen = written
        silent_s = 0.0 if news else silent_s + every_s
        if silent_s >= _ALIVE_S:
            silent_s = 0.0
            yield ": still here\n\n"
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), every_s)
