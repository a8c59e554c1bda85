"""A session of many clients in one process: it ends, and takes memory by the model for each of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from comity.errors import InvalidValue
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate

_SCRIPT = """
[session]
protocol = "gradient_rewards"
id = "many"
acceptors = ["server"]
rounds = 1
seed = 1
[session.model]
name = "mlp"
options = {{ hidden = {hidden} }}
[session.task]
input_shape = [1, 8, 8]
classes = 10
[session.terms]
clients = {clients}
epochs = 1
batch_size = 16
floor = 0.0005
[party.server]
role = "server"
"""
_CLIENT = """
[party.c{index}]
role = "client"
data = {{ source = "digits", partition = {{ name = "uniform", parties = {clients}, index = {index} }} }}
"""
COPIES = 12
"""Model sizes that a client may cost here: its own tensors and gradients, two stored models, update and reward at both
ends, and the row of the matrix in which the server has all updates."""


@pytest.mark.timeout(300)
def test_sixty_clients_agree_on_who_they_are_worth() -> None:
    metrics: dict[str, Any] = dict(simulate(parse_script(_text(60, 60)))[0].metrics)
    (importance,) = metrics["importance_by_round"]
    assert len(importance) == len(metrics["score_together"]) == 60
    assert np.isclose(sum(importance), 1)
    assert all(size > 0 for size in metrics["bytes_by_round"][0])


def test_another_number_of_clients_than_agreed_is_refused() -> None:
    for joining in (3, 5):
        with pytest.raises(InvalidValue, match=f"expected 4, received {joining}"):
            simulate(parse_script(_text(4, joining)))


def _text(clients: int, joining: int, hidden: int = 8) -> str:
    rows = "".join(_CLIENT.format(clients=joining, index=index) for index in range(joining))
    return _SCRIPT.format(clients=clients, hidden=hidden) + rows


_MEASURE = """
import resource, sys
import torch
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate

torch.set_num_threads(1)
simulate(parse_script(sys.stdin.read()))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def _peak(script: str) -> int:
    """Most bytes that a process of its own held at a time for a session."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE], input=script, capture_output=True, text=True, check=True, timeout=200
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_memory_grows_by_the_model_for_every_client() -> None:
    clients, small, large = 50, 8, 2008
    bytes_more = (large - small) * (64 + 1 + 10) * 4
    peaks = [_peak(_text(clients, clients, hidden)) for hidden in (small, large)]
    assert (peaks[1] - peaks[0]) / bytes_more / clients < COPIES
