"""Asks a node's door for predictions, as an application on its machine would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from torch import Tensor

from comity.errors import InvalidValue
from comity.inference.messages import SERVICE, ModelInferRequest, ModelInferResponse
from comity.inference.settings import DoorSettings, address_in
from comity.inference.tensors import DATATYPES, from_raw, raw
from comity.protocol.predicting import Predictor, Said
from comity.transport.addresses import is_loopback
from comity.transport.status import from_rpc_error
from comity.web.token import token_in

_DEADLINE_S = 600.0


@contextmanager
def asked(settings: DoorSettings, state_dir: Path, session: str) -> Iterator[Predictor]:
    """What a session that stays on says, at the node of this machine that keeps `state_dir`.

    Args:
        settings: Where the node's door is.
        state_dir: What the node keeps.
        session: The session.

    Yields:
        Says of a batch what the door does: its outputs, and of the parameters that have a text for each input, that.

    Raises:
        InvalidValue: The door is on another machine than this.
        ComityError: Of the predictor, what the node refuses, or that it cannot be reached.
    """
    address = address_in(settings, state_dir)
    if not address.startswith("unix:") and not is_loopback(address):
        raise InvalidValue(
            "the node's predictions are not served on this machine alone",
            expected="predictions.listen on loopback, or left out",
            received=address,
            action="ask it as applications do, with a certificate",
        )
    bearer = (("authorization", f"Bearer {token_in(state_dir)}"),)
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer", ModelInferRequest.SerializeToString, ModelInferResponse.FromString
        )

        def predict(inputs: Tensor) -> Said:
            request = ModelInferRequest(model_name=session)
            datatype = next(name for name, each in DATATYPES.items() if each.dtype == inputs.dtype)
            request.inputs.add(name="inputs", datatype=datatype, shape=list(inputs.shape))
            request.raw_input_contents.append(raw(inputs))
            try:
                response = infer(request, timeout=_DEADLINE_S, metadata=bearer)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error
            said: dict[str, Tensor | list[str]] = {
                each.name: from_raw(each.datatype, list(each.shape), data)
                for each, data in zip(response.outputs, response.raw_output_contents, strict=True)
            }
            # A map has no order: columns come in that of their names.
            for name, each in sorted(response.parameters.items()):
                texts = each.string_param.split(",")
                if name not in said and len(texts) == len(inputs):
                    said[name] = texts
            return said

        yield predict
