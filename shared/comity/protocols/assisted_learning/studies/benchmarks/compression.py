"""Checkpoints that cross as what changed since the one before: how much shorter they are, what that costs, and when it pays.

It pays on connections on which the bytes that are saved take longer than encoding and decoding them, one after the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from backports import zstd

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import one_thread
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.protocols.assisted_learning.studies.benchmarks.screening import DATA
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.simulation.in_process import parties
from comity.tensors import Blob, delta

_ADAM_SHARE = 2.0
"""How much shorter a trajectory of Adam has to be."""

_SCRIPT = """\
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = 1
model = {{ name = "{model}" }}

[session.terms]
optimizer = "{optimizer}"
learning_rate = {rate}
batch_size = {batch}
iterations = {iterations}
sampling_period = {period}

[party.learner]
role = "learner"

[party.learner.data]
{data}
partition = {{ name = "uniform", parties = 2, index = 0 }}

[party.provider]
role = "provider"

[party.provider.data]
{data}
partition = {{ name = "uniform", parties = 2, index = 1 }}
"""
_DIGITS = 'source = "digits"\nper_class = 100'
_CIFAR = 'source = "imagefolder:{folder}"\nper_class = 500'


@dataclass(frozen=True)
class Training:
    """A local training whose trajectory is measured.

    Attributes:
        model: The model.
        optimizer: The optimiser.
        rate: Its learning rate.
        batch: Samples in a batch.
        period: Iterations between two checkpoints.
        marks: Iterations between which checkpoints are looked at together, ascending.
    """

    model: str
    optimizer: str
    rate: float
    batch: int
    period: int
    marks: tuple[int, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.model}, {self.optimizer} {self.rate:g}, I = {self.period}"

    def checkpoints(self, data: str) -> Iterator[tuple[int, Blob]]:
        """Trains as a session's learner does; the iterations of the checkpoints, and their blobs."""
        values = {"model": self.model, "optimizer": self.optimizer, "rate": self.rate, "batch": self.batch}
        # Half of the session's iterations are the learner's, and the one after the last checkpoint is not made.
        text = _SCRIPT.format(**values, iterations=2 * (self.marks[-1] + 1), period=self.period, data=data)
        script = parse_script(text)
        (learner,), _ = parties(script)
        contract, _ = draft_contract(script, learner, "bench")
        terms = AssistedLearningTerms.model_validate(contract.terms.model_dump())
        task = learner.task(contract)
        for sample in task.trajectory(
            task.initial_state, terms.optimizer_spec(1), iterations=self.marks[-1] + 1, period=self.period, round=1
        ):
            yield sample.iteration, task.layout.pack(sample.state)


_SMALL = (
    Training("mlp", "adam", 3e-3, 32, 5, (0, 20, 80, 100)),
    Training("mlp", "sgd", 1e-2, 32, 5, (0, 20, 80, 100)),
)
_LARGE = (
    Training("alexnet-cifar", "adam", 1e-3, 64, 10, (0, 50, 200, 250)),
    Training("alexnet-cifar", "sgd", 1e-2, 64, 10, (0, 50, 200, 250)),
    Training("resnet18-cifar", "adam", 1e-3, 16, 10, (0, 30)),
)
"""The paper's models and learning rates, with smaller batches."""


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark: on CIFAR-10 where `COMITY_DATA` names a folder that holds `cifar10`, else on digits.

    Args:
        quick: Twenty iterations on digits.
    """
    machine = describe()
    folder = Path(os.environ.get(DATA, "")) / "cifar10"
    is_large = not quick and os.environ.get(DATA) and folder.is_dir()
    trainings = _LARGE if is_large else _SMALL
    data = _CIFAR.format(folder=folder.resolve()) if is_large else _DIGITS
    rows: list[Row] = []
    targets: list[Target] = []
    with one_thread():
        for training in trainings:
            spans = _spans(training, data, marks=2 if quick else len(training.marks))
            rows += [row for span in spans for row in span.rows()]
            if training.optimizer == "adam":
                whole = sum(span.dense for span in spans) / sum(span.changed for span in spans)
                targets.append(Target.at_least(f"{training.name}, dense over delta", _ADAM_SHARE, whole))
    return Report("compression", machine, rows, targets)


@dataclass
class Span:
    """The checkpoints of a part of a training.

    Attributes:
        name: The training, and which part.
        dense: Bytes as they are.
        alone: Bytes, compressed by themselves.
        changed: Bytes as what changed.
        encode_s: Processor seconds of encoding a byte, by checkpoint.
        decode_s: Of decoding it.
    """

    name: str
    dense: int = 0
    alone: int = 0
    changed: int = 0
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How many times shorter it is as what changed."""
        return self.dense / self.changed

    def add(self, blob: Blob, base: Blob) -> None:
        """Encodes a checkpoint against the one before, and decodes it."""
        began = time.process_time()
        encoded = memoryview(delta.encode(blob.data, base.data))
        between = time.process_time()
        restored = delta.decode(encoded, base.data)
        ended = time.process_time()
        if restored != blob.data:
            raise AssertionError("a checkpoint came back otherwise")
        self.dense += blob.size
        self.alone += len(zstd.compress(blob.data, 1))
        self.changed += len(encoded)
        self.encode_s.append((between - began) / blob.size)
        self.decode_s.append((ended - between) / blob.size)

    def rows(self) -> list[Row]:
        """What was measured; times are processor times of one core."""
        dense = Row(f"{self.name}: dense", self.dense / 1e6, "MB")
        encode_s, decode_s = median(self.encode_s), median(self.decode_s)
        pays = 8e-9 * (1 - 1 / self.ratio) / (encode_s + decode_s)
        return [
            dense,
            Row(f"{self.name}: Zstandard alone", self.alone / 1e6, "MB").over(dense),
            Row(f"{self.name}: delta", self.changed / 1e6, "MB").over(dense),
            Row(f"{self.name}: encoding", 1e-6 / encode_s, "MB/s"),
            Row(f"{self.name}: decoding", 1e-6 / decode_s, "MB/s"),
            Row(f"{self.name}: connection speed below which delta pays", pays, "Gbit/s"),
        ]


def _spans(training: Training, data: str, *, marks: int) -> list[Span]:
    """Measures a training's trajectory, part by part."""
    used = replace(training, marks=training.marks[:marks])
    spans = [Span(f"{used.name}, iterations {a} to {b}") for a, b in pairwise(used.marks)]
    before: Blob | None = None
    at = 0
    for iteration, blob in used.checkpoints(data):
        if before is not None:
            spans[at].add(blob, before)
        at += iteration == used.marks[at + 1]
        before = blob
    return spans
