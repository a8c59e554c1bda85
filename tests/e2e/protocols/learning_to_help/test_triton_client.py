"""Triton's own client asks a node, over gRPC and HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comity.protocols.learning_to_help.studies.demo import script
from tests.e2e.protocols.learning_to_help.serving import DIGITS, SESSION, said, serving

_CLIENT = Path(__file__).with_name("triton_client.py")


def _free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


def _over_http(address: str, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
    line = HTTPConnection(address, timeout=60)
    with closing(line):
        given = None if body is None else json.dumps(body)
        line.request(method, path, given, {"authorization": f"Bearer {token}", "host": "localhost"})
        answer = line.getresponse()
        return answer.status, answer.read()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has tritonclient."""
    if shutil.which("uv") is None:
        pytest.skip("uv makes the environment of Triton's client")
    folder = tmp_path_factory.mktemp("triton")
    subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", str(folder / "v")], check=True)
    python = folder / "v" / "bin" / "python"
    installing = ["uv", "pip", "install", "--quiet", "--python", str(python), "tritonclient[grpc,http]==2.73.0"]
    if subprocess.run(installing, check=False).returncode:
        pytest.skip("tritonclient cannot be installed here")
    return python


@pytest.mark.slow
def test_tritons_client_is_answered_over_grpc_and_http_as_the_shell_is(
    triton: Path, own_site: Any, typed: Any, tmp_path: Path
) -> None:
    over = {name: f"127.0.0.1:{_free_port()}" for name in ("listen", "http")}
    config = f'\n[protocols.learning_to_help.predictions]\nlisten = "{over["listen"]}"\nhttp = "{over["http"]}"\n'
    # Where no rate is bounded no tie is drawn, and the same is decided again.
    text = script(3).replace("requests = 500", "requests = 5000\nserves = true").replace("rounds = 4 ", "rounds = 1 ")
    with serving(own_site.folder, text, config, address=over["listen"]) as pair:
        node = ("--config", pair.client.folder / "node.toml")
        shell = typed.json("predict", "digits", "--session", SESSION, *node, cwd=tmp_path)["predictions"]
        images = DIGITS[[int(each["id"]) for each in shell]]
        np.save(tmp_path / "images.npy", images)
        token = (pair.client.folder / "state" / "web.token").read_text().strip()
        typed = [str(triton), str(_CLIENT), over["listen"], over["http"], token, SESSION, str(tmp_path / "images.npy")]
        done = subprocess.run(typed, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        own = {route: said(pair.application.infer(images, route=route)) for route in ("local", "remote", "auto")}
        assert _over_http(over["http"], "GET", "/v2/health/live", "nothing")[0] == 403
        status, said_of_it = _over_http(
            over["http"],
            "POST",
            f"/v2/models/{SESSION}/infer",
            token,
            {"inputs": [{"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
        )
        assert (status, list(json.loads(said_of_it))) == (400, ["error"])
    found = json.loads(done.stdout)
    assert {each["decision"] for each in shell} == {"LOCAL", "REMOTE"}
    for told in (found["grpc"], *found["http"]):
        for route, outputs in own.items():
            assert told[route]["class"] == outputs["class"].tolist()
            assert told[route]["remote"] == outputs["remote"].tolist()
            assert np.allclose(told[route]["probability"], outputs["probability"], atol=1e-6)
        assert told["auto"]["class"] == [int(each["class"]) for each in shell]
        assert told["auto"]["remote"] == [each["decision"] == "REMOTE" for each in shell]
