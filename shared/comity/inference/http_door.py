"""Predictions over HTTP: the REST form of the protocol, with its extension for binary tensors (extra `web`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from comity.errors import ComityError, MalformedMessage, TooManyCalls
from comity.inference.grpc_door import model_metadata, require_outputs, server_metadata, within
from comity.inference.offers import Answer, Offers
from comity.inference.tensors import DATATYPES, batch_of, from_raw, from_values, raw
from comity.web.status import http_status

LENGTH_HEADER = "Inference-Header-Content-Length"
"""How long the JSON before binary tensors is, in bytes."""
MAX_BODY = 64 * 2**20
_DIGITS = 20
"""Most digits of a length: Python reads no number of thousands."""

Handler = Callable[[Request], Any]


def routes(offers: Offers) -> list[BaseRoute]:
    """The protocol's paths.

    Args:
        offers: What can be asked.
    """

    async def live(request: Request) -> Response:
        del request
        return JSONResponse({"live": True, "ready": True})

    async def metadata(request: Request) -> Response:
        del request
        return JSONResponse(server_metadata())

    async def described(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(model_metadata(name, offers.find(name)))

    async def ready(request: Request) -> Response:
        name = request.path_params["name"]
        offers.find(name)
        return JSONResponse({"name": name, "ready": True})

    async def infer(request: Request) -> Response:
        called = request.path_params["name"]
        offer = offers.find(called)
        header, rest = _parts(request, await request.body())
        inputs, parameters = header.get("inputs"), _mapping(header, "parameters")
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
            raise MalformedMessage(
                "the inputs of a request", expected="a list of one tensor", received=str(inputs)[:100]
            )
        wanted = header.get("outputs") or [{"name": each.name} for each in offer.outputs]
        if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
            raise MalformedMessage("the outputs of a request", expected="a list of tensors", received=str(wanted)[:100])
        require_outputs(offer, [str(each.get("name")) for each in wanted])
        name, tensor = _tensor(inputs[0], rest)
        asked = offer.predict(batch_of(offer, name, tensor), parameters, within(parameters))
        # Who goes cancels it, and with it what was asked.
        answer = await asyncio.wrap_future(asked)
        names = {"model_name": called, "model_version": offer.name}
        return _response(names, header, wanted, answer, bool(parameters.get("binary_data_output")))

    paths = {"/v2": metadata, "/v2/health/live": live, "/v2/health/ready": live}
    models = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    for base in models:
        paths |= {base: described, f"{base}/ready": ready}
    return [
        *(Route(path, _explained(handler), methods=["GET"]) for path, handler in paths.items()),
        *(Route(f"{base}/infer", _explained(infer), methods=["POST"]) for base in models),
    ]


def _explained(handler: Handler) -> Handler:
    """Errors as the protocol has them."""

    async def handle(request: Request) -> Response:
        try:
            answer: Response = await handler(request)
        except ComityError as error:
            headers = {"Retry-After": "1"} if isinstance(error, TooManyCalls) else None
            return JSONResponse({"error": str(error)}, http_status(error), headers)
        return answer

    return handle


def _parts(request: Request, body: bytes) -> tuple[Mapping[str, Any], bytes]:
    """A request's JSON, and the binary tensors behind it."""
    length = request.headers.get(LENGTH_HEADER)
    if length is not None and (not length.isdecimal() or len(length) > _DIGITS or int(length) > len(body)):
        raise MalformedMessage(f"the header {LENGTH_HEADER}", expected=f"0 to {len(body)}", received=length[:40])
    at = len(body) if length is None else int(length)
    try:
        header = json.loads(body[:at])
    except (ValueError, RecursionError) as error:
        raise MalformedMessage("the request is no JSON", expected="an object", received=str(error)[:200]) from error
    if not isinstance(header, dict):
        raise MalformedMessage("the request", expected="an object", received=type(header).__name__)
    return header, body[at:]


def _mapping(header: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = header.get(name) or {}
    if not isinstance(value, dict):
        raise MalformedMessage(name, expected="an object", received=str(value)[:100])
    return value


def _tensor(given: Mapping[str, Any], rest: bytes) -> tuple[str, Any]:
    name, datatype, shape = str(given.get("name")), str(given.get("datatype")), given.get("shape")
    if not isinstance(shape, list) or not all(isinstance(each, int) and not isinstance(each, bool) for each in shape):
        raise MalformedMessage("the shape", expected="a list of whole numbers", received=str(shape)[:100])
    size = _mapping(given, "parameters").get("binary_data_size")
    if size is None:
        return name, from_values(datatype, shape, given.get("data"))
    if "data" in given:
        raise MalformedMessage("contents in two forms", expected="data, or binary_data_size", received="both")
    if size != len(rest):
        raise MalformedMessage("binary_data_size", expected=len(rest), received=str(size)[:40])
    return name, from_raw(datatype, shape, rest)


def _response(
    names: Mapping[str, str],
    header: Mapping[str, Any],
    wanted: Sequence[Mapping[str, Any]],
    answer: Answer,
    binary: bool,
) -> Response:
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for each in wanted:
        tensor = answer.outputs[each["name"]]
        datatype = next(known for known, kind in DATATYPES.items() if kind.dtype == tensor.dtype)
        described: dict[str, Any] = {"name": each["name"], "datatype": datatype, "shape": list(tensor.shape)}
        if _mapping(each, "parameters").get("binary_data", binary):
            parts.append(raw(tensor))
            described["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            described["data"] = tensor.flatten().tolist()
        outputs.append(described)
    text: dict[str, Any] = {**names, "outputs": outputs, "parameters": dict(answer.parameters)}
    if "id" in header:
        text["id"] = str(header["id"])
    encoded = json.dumps(text).encode()
    if not parts:
        return Response(encoded, media_type="application/json")
    headers = {LENGTH_HEADER: str(len(encoded))}
    return Response(b"".join([encoded, *parts]), media_type="application/octet-stream", headers=headers)
