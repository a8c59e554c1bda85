"""An application of a client's: asks its node what digits are, as `python classify.py NODE_FOLDER SESSION`.

The node answers by the Open Inference Protocol, on a Unix socket in its state folder: its own model where that is sure, the
server where it is not, and the own model again where the server takes longer than the request allows.
"""

import sys
from pathlib import Path

import grpc
import numpy as np
from sklearn.datasets import load_digits

from comity.inference.messages import SERVICE, ModelInferRequest, ModelInferResponse

folder, session = Path(sys.argv[1]).resolve(), sys.argv[2]
digits = load_digits()
images = digits.images[:24, None].astype(np.float32)

request = ModelInferRequest(model_name=session)
request.inputs.add(name="inputs", datatype="FP32", shape=images.shape)
request.raw_input_contents.append(images.tobytes())
request.parameters["timeout"].int64_param = 2_000_000  # microseconds
with grpc.insecure_channel(f"unix:{folder / 'state' / 'predictions.sock'}") as channel:
    infer = channel.unary_unary(
        f"/{SERVICE}/ModelInfer", ModelInferRequest.SerializeToString, ModelInferResponse.FromString
    )
    answer = infer(request, timeout=30)

raw = {each.name: data for each, data in zip(answer.outputs, answer.raw_output_contents, strict=True)}
classes = np.frombuffer(raw["class"], np.int64)
asked = answer.parameters["answered_by"].string_param.split(",")
for label, found, who in zip(digits.target, classes, asked, strict=False):
    print(f"a {label}: the {who} says {found}")
print(f"{np.mean(classes == digits.target[: len(classes)]):.0%} right")
