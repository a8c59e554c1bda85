"""An application with Triton's own client, in an environment of its own, since that pins protobuf.

Run with the address of gRPC, that of HTTP, the token, the model's name and a file of images; prints what both said.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

grpc_address, http_address, token, model, file = sys.argv[1:]
images = np.load(file)
headers = {"authorization": f"Bearer {token}"}


def asked(module, client, binary):
    """What a client is told, by the same steps over gRPC and HTTP."""
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready(model, headers=headers)
    given = module.InferInput("inputs", list(images.shape), "FP32")
    given.set_data_from_numpy(images, **binary)
    found = {}
    for route in ("local", "remote", "auto"):
        outputs = [module.InferRequestedOutput(name, **binary) for name in ("class", "remote", "probability")]
        # A copy: over HTTP it adds the request's length to them.
        answer = client.infer(
            model, [given], outputs=outputs, headers=dict(headers), parameters={"route": route}, timeout=30_000_000
        )
        found[route] = {name: answer.as_numpy(name).tolist() for name in ("class", "remote", "probability")}
    return found


with over_grpc.InferenceServerClient(grpc_address) as client:
    described = client.get_model_metadata(model, headers=headers)
    by_grpc = asked(over_grpc, client, {})
with over_http.InferenceServerClient(http_address) as client:
    assert client.get_model_metadata(model, headers=headers)["name"] == described.name == model
    by_http = [
        asked(over_http, client, {name: value}) for name, value in (("binary_data", True), ("binary_data", False))
    ]
json.dump({"grpc": by_grpc, "http": by_http}, sys.stdout)
