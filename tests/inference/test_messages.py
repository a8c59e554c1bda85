"""The protocol's messages, whose pool is their own."""

from __future__ import annotations

import gc
import weakref

from google.protobuf.message_factory import GetMessageClass

from comity.inference.messages import POOL, message


def test_classes_stay_while_there_is_no_message() -> None:
    request = message("ModelInferRequest")()
    kept = weakref.ref(type(request.inputs.add()))
    del request
    gc.collect()
    assert kept() is GetMessageClass(POOL.FindMessageTypeByName("inference.ModelInferRequest.InferInputTensor"))
