"""What keeping everything on disk costs a session of assisted learning."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from comity.bench.durability import measure
from comity.bench.report import Report
from comity.node.sessions.script import Script, parse_script

_SCRIPT = """\
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = {rounds}
model = {{ name = "lenet5" }}

[session.terms]
iterations = {iterations}
sampling_period = 10
batch_size = 256

[party.learner]
role = "learner"

[party.learner.data]
source = "npz:{images}"
partition = {{ name = "uniform", parties = 2, index = 0 }}

[party.provider]
role = "provider"

[party.provider.data]
source = "npz:{images}"
partition = {{ name = "uniform", parties = 2, index = 1 }}
"""
_ITERATIONS = 60
"""Of both parties in a round: with the sampling period, a checkpoint in ten iterations, as `screening` has it on CIFAR-10."""
_SAMPLES = 1_000


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark.

    Args:
        quick: One short round, once.
    """
    rounds, iterations, samples = (1, 40, _SAMPLES // 10) if quick else (3, _ITERATIONS, _SAMPLES)
    return measure(partial(_script, rounds=rounds, iterations=iterations, samples=samples), quick=quick)


def _script(folder: Path, *, rounds: int, iterations: int, samples: int) -> Script:
    """A session on images of noise, of which each class has its own brightness."""
    images = folder / "images.npz"
    random = np.random.default_rng(0)
    labels = np.arange(samples) % 10
    pixels = random.integers(0, 128, (samples, 3, 32, 32)) + 12 * labels[:, None, None, None]
    np.savez(images, x=pixels.astype(np.uint8), y=labels)
    return parse_script(_SCRIPT.format(images=images, rounds=rounds, iterations=iterations))
