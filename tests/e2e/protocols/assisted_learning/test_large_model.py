"""A session with a model of a gigabyte in bfloat16 between two daemons, and the memory that each took."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from safetensors import safe_open

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.processes import running

CODE = """
import math, torch
from torch import nn

def large(input_shape, outputs, *, hidden: int):
    wide = nn.Linear(math.prod(input_shape), hidden), nn.Linear(hidden, hidden)
    return nn.Sequential(nn.Flatten(), wide[0], nn.ReLU(), wide[1], nn.ReLU(), nn.Linear(hidden, outputs)).bfloat16()
"""
SCRIPT = """
[session]
protocol = "assisted_learning"
id = "large-0"
acceptors = ["provider"]
rounds = 1
model = {{ name = "large", options = {{ hidden = {hidden} }} }}
[session.terms]
optimizer = "sgd"
learning_rate = 0.01
batch_size = 8
learner_iterations = 2
provider_iterations = 2
iterations = 4
sampling_period = 1
[party.learner]
role = "learner"
secret = "l"
models = {{ large = "python:large_model:large" }}
data = {{ source = "digits", per_class = 2 }}
[party.provider]
role = "provider"
secret = "p"
models = {{ large = "python:large_model:large" }}
data = {{ source = "digits", per_class = 2 }}
"""


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder that takes no memory, as one below /dev/shm would."""
    with TemporaryDirectory(prefix="large-", dir="/var/tmp") as folder:
        yield Path(folder)


def peak(pid: int) -> int:
    """Most memory that a process had at a time, files that it maps among it, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("hidden", [5_000, 22_400])
def test_a_model_of_a_gigabyte_crosses_and_is_verified(
    hidden: int, disk: Path, record_property: Callable[[str, object], None]
) -> None:
    size = 2 * hidden * (64 + hidden + 10)
    if psutil.virtual_memory().available < 16 * size + 4e9:
        pytest.skip("too little memory is free")
    (disk / "large_model.py").write_text(CODE)
    script = parse_script(SCRIPT.format(hidden=hidden))
    found = {"PYTHONPATH": str(disk)}
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, disk / "nodes", environments={"learner": found, "provider": found}))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        began = {name: peak(node.pid) for name, node in nodes.items()}
        result, _ = drive(script, clients, SessionProgress(quiet=True))
        peaks = {name: peak(node.pid) - began[name] for name, node in nodes.items()}
    for name, most in peaks.items():
        record_property(f"{name}, peak in GB", round(most / 1e9, 2))
        record_property(f"{name}, peak over the model", round(most / size, 2))
        sys.stderr.write(
            f"{name}: {most / 1e9:.2f} GB at the peak, {most / size:.1f} of the model's {size / 1e9:.2f}\n"
        )
    assert result["ledger_verified"]
    with safe_open(disk / "nodes/learner/state/sessions/large-0/model.safetensors", "pt") as left:
        assert left.get_slice("3.weight").get_shape() == [hidden, hidden]
        assert left.get_slice("3.weight").get_dtype() == "BF16"
    assert min(result["bytes_sent"]["checkpoint"], result["bytes_received"]["checkpoint"]) >= size
    # As much as is reserved before a session, beside the files that are mapped.
    assert max(peaks.values()) < 12 * size + 1e9
