"""A provider under load: sessions of many learners, and many more clients that watch it."""

from __future__ import annotations

from comity.bench.load import FULL, QUICK, measure
from comity.bench.report import Report
from comity.node.sessions.script import parse_script

_SCRIPT = """\
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = 2
seed = 3
model = { name = "mlp", options = { hidden = 16 } }

[session.terms]
learning_rate = 0.003
batch_size = 32
iterations = 40
sampling_period = 5
evaluation_batch_size = 32

[party.learner]
role = "learner"
privacy = { preset = "public" }
data = { source = "digits", per_class = 20, partition = { name = "imbalance", gamma = 0.3, share = "learner" } }

[party.provider]
role = "provider"
privacy = { preset = "public" }
data = { source = "digits", per_class = 20, partition = { name = "imbalance", gamma = 0.3, share = "provider" } }
"""


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark.

    Args:
        quick: A handful of watchers and sessions, once.
    """
    return measure(parse_script(_SCRIPT), QUICK if quick else FULL)
