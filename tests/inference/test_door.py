"""The door of predictions beyond its limits: who is one too many is told so, and a place is free again when its caller goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from starlette.applications import Starlette
from starlette.testclient import TestClient

from comity.inference import grpc_door
from comity.inference.grpc_door import served
from comity.inference.http_door import LENGTH_HEADER, routes
from comity.inference.messages import SERVICE, message
from comity.inference.offers import Answer, Offer, Offers, Parameters, TensorSpec
from comity.protocol.services import ServiceContext
from comity.session.limits import Limits
from comity.transport.identity import Identity
from tests.e2e.conftest import until

MOST = 5
NAME = "s-1"


class Asked:
    """Something that predicts when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Future[Answer]] = []
        self.offers = Offers()

    def offer(self) -> Offer:
        spec = TensorSpec("inputs", "float32", (2,))
        return Offer(NAME, spec, (TensorSpec("class", "int64"),), self.predict)

    def predict(self, inputs: torch.Tensor, parameters: Parameters, within_s: float | None) -> Future[Answer]:
        del parameters, within_s
        found: Future[Answer] = Future()
        self.waiting.append(found)
        return found

    @property
    def open(self) -> list[Future[Answer]]:
        return [each for each in self.waiting if not each.done()]


def request(**fields: Any) -> Any:
    made = message("ModelInferRequest")(model_name=NAME, **fields)
    made.inputs.add(name="inputs", datatype="FP32", shape=[1, 2])
    made.raw_input_contents.append(b"\0" * 8)
    return made


@pytest.fixture
def asked() -> Iterator[Asked]:
    found = Asked()
    with found.offers.offered(found.offer()):
        yield found


@pytest.fixture
def channel(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[grpc.Channel]:
    monkeypatch.setattr(grpc_door, "_LIMITS", Limits(streams_a_party=MOST))
    context = ServiceContext("clinic", "client", None, Identity("clinic"), tmp_path)
    place = f"unix:{context.state_dir / 'predictions.sock'}"
    with served(asked.offers, place, context, "token", 0.0), grpc.insecure_channel(place) as found:
        yield found


def test_one_call_too_many_is_told_to_come_again_and_who_goes_leaves_a_place(
    asked: Asked, channel: grpc.Channel
) -> None:
    kinds = message("ModelInferRequest").SerializeToString, message("ModelInferResponse").FromString
    infer = channel.unary_unary(f"/{SERVICE}/ModelInfer", *kinds)
    calls = [infer.future(request(), timeout=60) for _ in range(MOST)]
    until(lambda: len(asked.open) == MOST, "all of them wait")
    with pytest.raises(grpc.RpcError) as refused:
        infer(request(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(asked.waiting) == MOST
    # What is asked beside is answered all the same.
    ready = channel.unary_unary(
        f"/{SERVICE}/ModelReady",
        message("ModelReadyRequest").SerializeToString,
        message("ModelReadyResponse").FromString,
    )
    assert ready(message("ModelReadyRequest")(name=NAME), timeout=60).ready
    calls[0].cancel()
    until(lambda: len(asked.open) == MOST - 1, "nobody works for who is gone")

    def is_let_in() -> bool:
        call = infer.future(request(), timeout=60)
        calls.append(call)
        until(lambda: call.done() or len(asked.open) == MOST, "it is answered or waits")
        return not call.done()

    until(is_let_in, "its place is free")
    for each in asked.open:
        each.set_result(Answer({"class": torch.tensor([1])}, {}))
    answered = [each.result() for each in calls[1:] if not each.cancelled() and each.exception() is None]
    assert len(answered) == MOST


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"parameters": {"timeout": 10**400}}, {}),
        ({"parameters": {"timeout": float("nan")}}, {}),
        ({"parameters": {"timeout": float("inf")}}, {}),
        ({"outputs": [{"name": "class"}] * 2}, {}),
        ({}, {LENGTH_HEADER: "9" * 5000}),
    ],
    ids=["timeout of 400 digits", "timeout NaN", "timeout infinite", "output twice", "length of 5000 digits"],
)
def test_numbers_that_are_none_are_refused_in_one_line(
    asked: Asked, body: dict[str, Any], headers: dict[str, str]
) -> None:
    inputs = [{"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]
    client = TestClient(Starlette(routes=routes(asked.offers)))
    answer = client.post(
        f"/v2/models/{NAME}/infer", content=json.dumps({"inputs": inputs, **body}).encode(), headers=headers
    )
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]
    assert not asked.waiting
