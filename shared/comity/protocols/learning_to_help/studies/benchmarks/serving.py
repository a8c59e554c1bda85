"""Answers that a client's applications get of the server, between two daemons, beside servers that do not batch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.inference.messages import SERVICE, message
from comity.models import build
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script, session_text
from comity.protocols.learning_to_help.studies.benchmarks import plain_server
from comity.simulation.processes import NodeProcess, running

_CALLERS = 64
_CROWD = 1000
_SESSION = "bench"
_SCRIPT = """\
[session]
protocol = "learning_to_help"
id = "bench"
acceptors = ["server"]
rounds = 1
seed = 0

[session.models.local]
name = "{local}"

[session.models.server]
name = "{server}"
{options}

[session.models.rejector]
name = "mlp"
options = {{ hidden = 16 }}

[session.terms]
features = "{features}"
requests = 4000000
serves = true
server_epochs = 1
rejector_epochs = 1
local_epochs = 1
folds = 2

[simulation]
threads = 1

[party.client]
role = "client"
secret = "client"
data = {{ source = "{data}" }}
policy = {{ egress = ["contract", "local_model", "features"] }}
protocols = {{ learning_to_help = {{ raw_inputs = true }} }}

[party.server]
role = "server"
secret = "server"
data = {{ source = "{data}" }}
"""


@dataclass(frozen=True)
class Workload:
    """Models, and what an input is.

    Attributes:
        what: What to call it.
        local: m.
        features: The layer whose input crosses.
        server: e.
        hidden: Its width; 0 where it has none to set.
        input_shape: Of an input.
        feature_shape: Of its features.
    """

    what: str
    local: str
    features: str
    server: str
    hidden: int
    input_shape: tuple[int, ...]
    feature_shape: tuple[int, ...]


_LARGE = Workload("AlexNet at 64x64", "lenet5", "0", "torchvision:alexnet", 0, (3, 64, 64), (3, 64, 64))
_SMALL = Workload("the demo's e", "cnn-small", "4", "mlp", 256, (1, 8, 8), (16, 4, 4))


def run(*, quick: bool = False) -> Report:
    """Measures answers per second, delays, and memory under a crowd.

    Args:
        quick: The demo's e alone, for a moment.
    """
    seconds = 0.2 if quick else 3.0
    rows: list[Row] = []
    targets: list[Target] = []
    with one_thread():
        for workload in (_SMALL,) if quick else (_LARGE, _SMALL):
            found = _measured(workload, seconds, repeats=1 if quick else 3, crowd=100 if quick else _CROWD)
            rows += found[0]
            targets += found[1]
    return Report("serving", describe(), rows, targets)


def _measured(workload: Workload, seconds: float, repeats: int, crowd: int) -> tuple[list[Row], list[Target]]:
    """Rows and targets of one workload."""
    what = workload.what
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as folder, ExitStack() as stack:
        nodes, door = stack.enter_context(_served(workload, Path(folder)))
        plain = stack.enter_context(_plain(workload))
        inputs = np.random.default_rng(0).integers(0, 256, (64, *workload.input_shape)).astype(np.float32)
        features = np.zeros((64, int(np.prod(workload.feature_shape))), np.uint8)
        steps = features[:1].tobytes()

        def pass_one() -> None:
            plain(plain_server.PASS, steps)

        def ours() -> None:
            door.ask(inputs[:1])

        speeds = interleaved(
            {
                "ours": lambda: _throughput(ours, _CALLERS, seconds),
                "one by one": lambda: _throughput(pass_one, _CALLERS, seconds),
                "echo": lambda: _throughput(lambda: plain(plain_server.ECHO, steps), _CALLERS, seconds),
                "ours, 64 a message": lambda: 64 * _throughput(lambda: door.ask(inputs), 2, seconds),
                "bare, 64 at once": lambda: 64 * _throughput(_bare(workload, 64), 1, seconds),
                "ours, p99": lambda: _p99(ours, seconds),
                "one by one, p99": lambda: _p99(pass_one, seconds),
            },
            repeats=repeats,
        )
        before = [_resident(each) for each in nodes]
        answered, again = _crowd(door, inputs[:1], crowd)
        grown = max((_resident(each) - size) / size for each, size in zip(nodes, before, strict=True))
    one = Row(f"{what}: one by one, {_CALLERS} callers", speeds["one by one"], "/s")
    bare = Row(f"{what}: bare model, 64 at once", speeds["bare, 64 at once"], "/s")
    slow = Row(f"{what}: one by one, p99 at one caller", 1e3 * speeds["one by one, p99"], "ms")
    echo = Row(f"{what}: gRPC echo of the same bytes, {_CALLERS} callers", speeds["echo"], "/s")
    rows = [
        one,
        echo,
        bare,
        slow,
        Row(f"{what}: answers, {_CALLERS} callers", speeds["ours"], "/s").over(one),
        Row(f"{what}: answers, {_CALLERS} callers, beside the echo", speeds["ours"], "/s").over(echo),
        Row(f"{what}: answers, 64 to a message", speeds["ours, 64 a message"], "/s").over(bare),
        Row(f"{what}: p99 at one caller", 1e3 * speeds["ours, p99"], "ms").over(slow),
        Row(f"{what}: {crowd} callers at once, told to try again", float(again), ""),
        Row(f"{what}: {crowd} callers at once, growth of memory", grown, "x"),
    ]
    targets = [Target.at_least(f"{what}: of {crowd} callers at once, answered", crowd, answered)]
    if workload is _LARGE:
        targets += [
            Target.at_least(f"{what}: answers a second over one by one", 2.0, speeds["ours"] / speeds["one by one"]),
            Target.at_least(
                f"{what}: 64 to a message, over the bare model",
                0.7,
                speeds["ours, 64 a message"] / speeds["bare, 64 at once"],
            ),
            Target.at_most(
                f"{what}: p99 at one caller over one by one", 2.0, speeds["ours, p99"] / speeds["one by one, p99"]
            ),
            Target.at_most(f"{what}: growth of memory with {crowd} callers", 0.25, grown),
        ]
    return rows, targets


class Door:
    """Asks a client node as an application does; each input is to be answered by the server."""

    def __init__(self, folder: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{folder / 'state' / 'predictions.sock'}")
        kinds = message("ModelInferRequest").SerializeToString, message("ModelInferResponse").FromString
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer", *kinds)

    def begin(self, inputs: NDArray[Any]) -> Any:
        """Asks; returns what can be waited for."""
        made = message("ModelInferRequest")(model_name=_SESSION)
        made.inputs.add(name="inputs", datatype="FP32", shape=list(inputs.shape))
        made.raw_input_contents.append(inputs.tobytes())
        made.parameters["route"].string_param = "remote"
        return self._infer.future(made, timeout=120)

    def ask(self, inputs: NDArray[Any]) -> None:
        """Asks until the server has answered."""
        while "LOCAL" in self.begin(inputs).result().parameters["decision"].string_param:
            # What was answered is to be settled first.
            time.sleep(0.002)

    def close(self) -> None:
        """Asks no more."""
        self._channel.close()


@contextmanager
def _served(workload: Workload, folder: Path) -> Iterator[tuple[Sequence[NodeProcess], Door]]:
    """Both daemons of a session that serves, and the way in."""
    data = folder / "data.npz"
    draws = np.random.default_rng(1)
    images = draws.integers(0, 256, (64, *workload.input_shape), dtype=np.uint8)
    np.savez(data, x=images, y=np.arange(64) % 10, x_test=images[:20], y_test=np.arange(20) % 10)
    options = f"options = {{ hidden = {workload.hidden} }}" if workload.hidden else ""
    names = {"local": workload.local, "server": workload.server, "features": workload.features}
    script = parse_script(_SCRIPT.format(options=options, data=f"npz:{data}", **names))
    with running(script, folder / "n") as nodes:
        client = nodes["client"]
        with ControlClient(client.control_url) as control:
            control.run(session_text(script))
            while control.details(_SESSION).summary.state == "running":
                time.sleep(0.1)
        door = Door(client.folder)
        try:
            yield [client, nodes["server"]], door
        finally:
            door.close()


@contextmanager
def _plain(workload: Workload) -> Iterator[Callable[[str, bytes], bytes]]:
    """A server of the same model that answers one by one."""
    shape = "x".join(map(str, workload.feature_shape))
    typed = [sys.executable, "-m", plain_server.__name__, workload.server, shape, "10", str(workload.hidden)]
    with subprocess.Popen(  # noqa: S603 - this program, with arguments of its own
        typed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        address = process.stdout.readline().strip() if process.stdout is not None else ""
        with grpc.insecure_channel(address) as channel:
            calls: dict[str, Callable[..., bytes]] = {
                name: channel.unary_unary(f"/{plain_server.SERVICE}/{name}")
                for name in (plain_server.PASS, plain_server.ECHO)
            }
            yield lambda name, request: calls[name](request, timeout=120)
        if process.stdin is not None:
            process.stdin.close()


def _bare(workload: Workload, batch: int) -> Callable[[], None]:
    """A pass of the model, in this process."""
    options = {"hidden": workload.hidden} if workload.hidden else {}
    shape = workload.feature_shape
    model = build(workload.server, input_shape=shape, outputs=10, options=options, seed=0).eval()
    inputs = torch.zeros(batch, *shape)

    def once() -> None:
        with torch.inference_mode():
            model(inputs)

    return once


def _throughput(once: Callable[[], object], callers: int, seconds: float) -> float:
    """How often a second something is done by so many threads."""
    ends = time.perf_counter() + seconds

    def work() -> int:
        done = 0
        while time.perf_counter() < ends:
            once()
            done += 1
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        done = sum(each.result() for each in [pool.submit(work) for _ in range(callers)])
    return done / (time.perf_counter() - began)


def _p99(once: Callable[[], object], seconds: float) -> float:
    """The delay below which 99 of 100 are, at one caller."""
    delays: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(delays) < 20:
        began = time.perf_counter()
        once()
        delays.append(time.perf_counter() - began)
    return quantiles(delays, n=100)[-1]


def _crowd(door: Door, inputs: NDArray[Any], callers: int) -> tuple[int, int]:
    """How many of callers at once are answered, and how often one was told to try again."""
    waiting, answered, again = callers, 0, 0
    while waiting and again < 20 * callers:
        calls = [door.begin(inputs) for _ in range(waiting)]
        failed = sum(each.exception() is not None for each in calls)
        answered += waiting - failed
        again += failed
        waiting = failed
        if waiting:
            time.sleep(0.5)
    return answered, again


def _resident(node: NodeProcess) -> int:
    """A daemon's resident memory, in bytes."""
    for line in Path(f"/proc/{node.pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 1
