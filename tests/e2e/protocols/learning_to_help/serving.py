"""A session that stays on for applications, between two daemons, and an application that asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from comity.inference.messages import SERVICE, message
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script, session_text
from comity.simulation.processes import NodeProcess, prepare
from tests.e2e.conftest import until
from tests.protocols.learning_to_help.sessions import ASKED

SESSION = "demo-3"
DIGITS: NDArray[np.float32] = load_digits().images.astype(np.float32)[:, None]


def serving_script(requests: int = 5000, more: str = "reject_rate = 0.3") -> str:
    """A session in small that stays on; its rejector asks about a part of what it sees."""
    text = ASKED.replace("rounds = 3 ", "rounds = 1 ")
    return text.replace("requests = 500", f"requests = {requests}\nserves = true\n{more}")


class Application:
    """Asks a node by gRPC, as an application would."""

    def __init__(self, client: NodeProcess, address: str = "") -> None:
        self._token = client.folder / "state" / "web.token"
        self._channel = grpc.insecure_channel(address or f"unix:{client.folder / 'state' / 'predictions.sock'}")

    def call(self, method: str, **fields: Any) -> Any:
        """A method with one answer, by its fields."""
        return self._method(method)(message(f"{method}Request")(**fields), timeout=60, metadata=self._metadata)

    def infer(self, images: NDArray[Any], *how: Any, **more: Any) -> Any:
        """What is said of images; see `request`."""
        return self.begin(images, *how, **more).result()

    def begin(self, images: NDArray[Any], *how: Any, **more: Any) -> Future[Any]:
        """Asks, and returns what can be waited for; see `request`."""
        return self._method("ModelInfer").future(request(images, *how, **more), timeout=60, metadata=self._metadata)

    def close(self) -> None:
        """Asks no more."""
        self._channel.close()

    @property
    def _metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self._token.read_text().strip()}")]

    def _method(self, name: str) -> Any:
        kinds = message(f"{name}Request").SerializeToString, message(f"{name}Response").FromString
        return self._channel.unary_unary(f"/{SERVICE}/{name}", *kinds)


def request(images: NDArray[Any], within_s: float | None = None, route: str = "auto", model: str = SESSION) -> Any:
    made = message("ModelInferRequest")(model_name=model, id="7")
    made.inputs.add(name="inputs", datatype="FP32", shape=list(images.shape))
    made.raw_input_contents.append(images.astype(np.float32).tobytes())
    made.parameters["route"].string_param = route
    if within_s is not None:
        made.parameters["timeout"].int64_param = int(within_s * 1e6)
    return made


def said(response: Any) -> dict[str, NDArray[Any]]:
    """The outputs of a response."""
    kinds = {"INT64": np.int64, "FP32": np.float32, "BOOL": np.bool_}
    return {
        each.name: np.frombuffer(data, kinds[each.datatype]).reshape(each.shape)
        for each, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def reasons(response: Any) -> list[str]:
    """Why each input was answered at home."""
    return response.parameters["reason"].string_param.split(",")


class Serving:
    """Both nodes of a session, which is on.

    Attributes:
        client: The node that asks.
        server: The node that helps.
        application: Asks the client.
    """

    def __init__(self, nodes: dict[str, NodeProcess], address: str = "") -> None:
        self.client, self.server = nodes["client"], nodes["server"]
        self.application = Application(self.client, address)

    def begin(self, text: str) -> None:
        """Begins the session, and waits until it predicts."""
        with ControlClient(self.client.control_url) as control:
            assert control.run(session_text(parse_script(text))) == SESSION
        self.wait_until_it_predicts()

    def wait_until_it_predicts(self) -> None:
        until(lambda: self.state() in {"waiting", "failed"} and self.ready(), "the session predicts", deadline_s=120)

    def ready(self) -> bool:
        try:
            return bool(self.application.call("ModelReady", name=SESSION).ready)
        except grpc.RpcError:
            return False

    def state(self) -> str:
        with ControlClient(self.client.control_url) as control:
            return control.details(SESSION).summary.state

    def end(self) -> dict[str, Any]:
        """Ends the session; what it came to."""
        with ControlClient(self.client.control_url) as control:
            assert control.cancel(SESSION)
            details = control.details(SESSION)
        assert details.summary.state == "finished", details
        return json.loads(details.result)  # type: ignore[no-any-return]


@contextmanager
def serving(folder: Path, text: str, config: str = "", address: str = "") -> Iterator[Serving]:
    """A session that predicts, while the body lasts."""
    nodes = prepare(parse_script(text), folder)
    file = nodes["client"].folder / "node.toml"
    file.write_text(file.read_text() + config)
    for node in nodes.values():
        node.start()
    try:
        for node in nodes.values():
            node.wait_ready()
        pair = Serving(nodes, address)
        try:
            pair.begin(text)
            yield pair
        finally:
            pair.application.close()
    finally:
        for node in nodes.values():
            node.stop()
