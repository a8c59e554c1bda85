"""Predictions over gRPC: `inference.GRPCInferenceService`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc

from comity.contract import Json
from comity.errors import MalformedMessage, UnknownParty
from comity.inference.messages import POOL, SERVICE, ModelInferRequest, ModelInferResponse, message
from comity.inference.offers import Answer, Offer, Offers, Parameters
from comity.inference.tensors import DATATYPES, batch_of, datatype_of, from_raw, from_values, raw
from comity.protocol.services import ServiceContext
from comity.session.limits import Limits
from comity.session.replayable_stream import StreamEnd
from comity.transport.addresses import is_loopback
from comity.transport.identity import metadata
from comity.transport.server import NodeServer
from comity.transport.streams import Streams, non_blocking

_UNIX = "unix:"
_MICRO = 1e-6
_LONGEST_US = 2**63 - 1
_SPARE = 0.9
"""Share of a call's own deadline in which it is answered."""
_LIMITS = Limits(streams_a_party=4096)
EXTENSIONS = ("binary_tensor_data",)


class OneAnswer:
    """The answer to a call, as a `Source`: a caller who waits holds no thread, and one who goes is waited for no more.

    Args:
        answer: Is set to it.
        encode: Makes the message of it.
    """

    def __init__(self, answer: Future[Answer], encode: Callable[[Answer], Any]) -> None:
        self._answer = answer
        self._encode = encode
        self._is_given = False

    def subscribe(self, notify: Callable[[], None]) -> None:
        """See `Source.subscribe`."""
        self._answer.add_done_callback(lambda _: notify())

    def read(self) -> Any:
        """See `Source.read`."""
        if self._is_given:
            raise StreamEnd
        if not self._answer.done():
            return None
        self._is_given = True
        return self._encode(self._answer.result())

    def close(self) -> None:
        """See `Source.close`."""
        self._answer.cancel()


class GrpcDoor:
    """The service.

    Args:
        offers: What can be asked.
        token: Without which nobody is answered; None where the place is guarded by itself.
        streams: Sends answers.
    """

    def __init__(self, offers: Offers, token: str | None, streams: Streams) -> None:
        self._offers = offers
        self._token = token
        self._streams = streams

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service."""
        unary: dict[str, Callable[[Any], dict[str, Any]]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": True},
            "ModelReady": lambda request: {"ready": request.name in self._offers.names()},
            "ServerMetadata": lambda _: server_metadata(),
            "ModelMetadata": lambda request: model_metadata(request.name, self._offers.find(request.name)),
        }
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                partial(self._tell, message(f"{name}Response"), tell),
                message(f"{name}Request").FromString,
                lambda answer: answer.SerializeToString(),
            )
            for name, tell in unary.items()
        }

        @non_blocking
        def infer(request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
            self._require_token(context)
            offer = self._offers.find(request.model_name)
            answer = self._infer(offer, request, context)
            self._streams.serve(OneAnswer(answer, partial(_encoded, request, offer.name)), context, send)

        # One answer is a stream of one on the wire; so that nobody who waits holds a thread.
        handlers["ModelInfer"] = grpc.unary_stream_rpc_method_handler(
            infer, ModelInferRequest.FromString, lambda answer: answer.SerializeToString()
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _tell(
        self, kind: Any, tell: Callable[[Any], dict[str, Any]], request: Any, context: grpc.ServicerContext
    ) -> Any:
        self._require_token(context)
        return kind(**tell(request))

    def _infer(self, offer: Offer, request: Any, context: grpc.ServicerContext) -> Future[Answer]:
        parameters = {
            key: getattr(each, each.WhichOneof("parameter_choice") or "string_param")
            for key, each in request.parameters.items()
        }
        remaining = context.time_remaining()
        inputs = batch_of(offer, *_input(request))
        require_outputs(offer, [each.name for each in request.outputs])
        return offer.predict(inputs, parameters, within(parameters, remaining))

    def _require_token(self, context: grpc.ServicerContext) -> None:
        if self._token is None:
            return
        scheme, _, given = metadata(context).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self._token.encode()):
            raise UnknownParty(
                "predictions need the node's token",
                expected="the metadata authorization: Bearer TOKEN",
                received="another" if given else "none",
                action="it is in web.token in the node's state_dir",
            )


def within(parameters: Parameters, remaining: float | None = None) -> float | None:
    """Within how many seconds an answer is of use: by `timeout`, in microseconds, and by the call's own deadline.

    Raises:
        MalformedMessage: It is no time.
    """
    timeout = parameters.get("timeout")
    is_time = isinstance(timeout, int | float) and not isinstance(timeout, bool) and 0 <= timeout <= _LONGEST_US
    if timeout is not None and not is_time:
        raise MalformedMessage(
            "the parameter timeout", expected=f"microseconds, 0 to {_LONGEST_US}", received=str(timeout)[:100]
        )
    found = [float(timeout) * _MICRO] if isinstance(timeout, int | float) and timeout else []
    # A call without a deadline has one of ages.
    found += [remaining * _SPARE] if remaining is not None else []
    return min(found) if found else None


def require_outputs(offer: Offer, names: Sequence[str]) -> None:
    """Checks that what a request wants is there.

    Raises:
        MalformedMessage: It is not.
    """
    known = [each.name for each in offer.outputs]
    if len(set(names)) < len(names):
        # Each is as long as the batch.
        raise MalformedMessage("an output twice", expected="each once", received=f"{len(names)} names")
    for name in names:
        if name not in known:
            raise MalformedMessage("an output that is not there", expected=", ".join(known), received=name[:200])


def server_metadata() -> dict[str, Any]:
    """What a server says of itself."""
    return {"name": "comity", "version": version("comity"), "extensions": [*EXTENSIONS]}


def model_metadata(name: str, offer: Offer) -> dict[str, Any]:
    """What a server says of something that predicts, under a name that it was asked for; the version is the session."""

    def described(spec: Any) -> dict[str, Any]:
        return {"name": spec.name, "datatype": datatype_of(spec), "shape": [-1, *spec.shape]}

    return {
        "name": name,
        "versions": [offer.name],
        "platform": "comity",
        "inputs": [described(offer.inputs)],
        "outputs": [described(each) for each in offer.outputs],
    }


def _input(request: Any) -> tuple[str, Any]:
    if len(request.inputs) != 1:
        raise MalformedMessage("the inputs of a request", expected="one tensor", received=len(request.inputs))
    (given,) = request.inputs
    shape, typed = list(given.shape), given.HasField("contents")
    if typed and request.raw_input_contents:
        raise MalformedMessage(
            "contents in two forms", expected="raw_input_contents, or contents of each input", received="both"
        )
    if not typed:
        if len(request.raw_input_contents) != 1:
            raise MalformedMessage(
                "contents that are not there",
                expected="one entry of raw_input_contents, or contents of the input",
                received=f"{len(request.raw_input_contents)} entries",
            )
        return given.name, from_raw(given.datatype, shape, request.raw_input_contents[0])
    known = DATATYPES.get(given.datatype)
    values = getattr(given.contents, known.contents) if known is not None and known.contents else ()
    return given.name, from_values(given.datatype, shape, list(values))


def _encoded(request: Any, session: str, answer: Answer) -> Any:
    wanted = [each.name for each in request.outputs] or list(answer.outputs)
    response = ModelInferResponse(model_name=request.model_name, model_version=session, id=request.id)
    for name in wanted:
        tensor = answer.outputs[name]
        response.outputs.add(name=name, datatype=_datatype(tensor), shape=list(tensor.shape))
        response.raw_output_contents.append(raw(tensor))
    for key, value in answer.parameters.items():
        _set(response.parameters[key], value)
    return response


def _datatype(tensor: Any) -> str:
    return next(name for name, each in DATATYPES.items() if each.dtype == tensor.dtype)


def _set(parameter: Any, value: Json) -> None:
    match value:
        case bool():
            parameter.bool_param = value
        case int():
            parameter.int64_param = value
        case float():
            parameter.double_param = value
        case _:
            parameter.string_param = str(value)


@contextmanager
def served(offers: Offers, listen: str, context: ServiceContext, token: str, drain_s: float) -> Iterator[str]:
    """Serves predictions over gRPC.

    Args:
        offers: What can be asked.
        listen: `host:port`, or `unix:PATH`, which is for this node's user alone.
        context: The service's: callers from other places than this machine must have this party's certificate.
        token: What callers on a port must show.
        drain_s: How long calls may take at the end, in seconds.

    Yields:
        The address.
    """
    is_socket = listen.startswith(_UNIX)
    identity = context.identity
    secure = identity if identity.is_secure and not is_socket and not is_loopback(listen) else None
    server = NodeServer(secure, [SERVICE], only=context.party if secure else None, limits=_LIMITS, pool=POOL)
    GrpcDoor(offers, None if is_socket else token, server.streams).add_to(server.server)
    if is_socket:
        path = Path(listen.removeprefix(_UNIX))
        # One node works on a folder: what is there was left by one that was killed.
        path.unlink(missing_ok=True)
    address = server.start(listen)
    context.servers.append(server)
    if is_socket:
        path.chmod(0o600)
    try:
        yield address
    finally:
        server.stop(drain_s)
