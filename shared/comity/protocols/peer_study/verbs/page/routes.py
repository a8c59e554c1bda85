"""What the page asks for."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from comity.errors import ComityError, InvalidValue
from comity.protocols.peer_study.verbs.labels import Labels
from comity.web.assets import assets
from comity.web.events import changes

_PACKAGE = "comity.protocols.peer_study.verbs.page"
_TYPES = {"image": "image/png", "text": "text/plain; charset=utf-8"}


def routes(labels: Labels, annotator: str) -> list[BaseRoute]:
    """The page of one annotator, its files, what changes, a sample at a time, and what the annotator says.

    Args:
        labels: The session's.
        annotator: Who labels.
    """
    return [
        *assets(_PACKAGE, "page.html", ("page.css", "page.js")),
        Route("/changes", lambda request: changes(request, partial(picture, labels, annotator))),
        Route("/sample", partial(_sample, labels)),
        Route("/say", partial(_said, labels, annotator), methods=["POST"]),
        Route("/take-back", partial(_taken_back, labels, annotator), methods=["POST"]),
        Route("/hand-in", partial(_handed_in, labels, annotator), methods=["POST"]),
    ]


def picture(labels: Labels, annotator: str) -> dict[str, Any]:
    """What the page shows: of what others said nothing, so that each annotator judges alone."""
    try:
        shown = labels.show()
    except ComityError as error:
        return {"task": {"why": str(error), "samples": []}}
    samples = [
        {"sample": each["sample"], "said": each["said"].get(annotator)}
        for each in shown["samples"]
        if annotator in each["said"] or not each["is_settled"]
    ]
    kept = ("version", "session", "step", "classes", "guidelines", "kind", "columns", "annotators")
    return {"task": {name: shown[name] for name in kept} | {"annotator": annotator, "samples": samples}}


def _sample(labels: Labels, request: Request) -> Response:
    fields, data = labels.sample(request.query_params.get("sample", ""))
    if fields["kind"] == "table":
        return JSONResponse(fields["row"])
    return Response(data, media_type=_TYPES[fields["kind"]])


async def _said(labels: Labels, annotator: str, request: Request) -> Response:
    said = await _body(request)
    return JSONResponse(await run_in_threadpool(partial(labels.say, annotator, [said], is_final=False)))


async def _taken_back(labels: Labels, annotator: str, request: Request) -> Response:
    sample = str((await _body(request)).get("sample", ""))
    return JSONResponse(await run_in_threadpool(labels.take_back, annotator, sample))


async def _handed_in(labels: Labels, annotator: str, request: Request) -> Response:
    await _body(request)
    return JSONResponse(await run_in_threadpool(labels.hand_in, annotator))


async def _body(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.body() or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidValue("the request cannot be read", expected="a JSON object", received="something else")
    return found
