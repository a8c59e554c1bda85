"""What choosing samples costs: beside the forward pass, beside the bare model, and BADGE beside scikit-activeml's."""

from __future__ import annotations

import time
from importlib.util import find_spec

import torch
from torch import nn

from comity.bench.machine import describe
from comity.bench.memory import PeakMemory, is_measurable
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.models import build
from comity.protocols.peer_study.pool import BLOCK, TensorPool, in_blocks
from comity.protocols.peer_study.strategies import Question, choose, strategy
from comity.protocols.peer_study.students import Fitting, Labelled, PeerStudents
from comity.protocols.peer_study.studies.timing import Stopwatch

_POOL, _BUDGET = 50_000, 500
_QUICK = 300
_SHAPE, _CLASSES = (3, 32, 32), 10
_MOST_OF_FORWARD, _LEAST_THROUGHPUT, _MOST_OVER_ACTIVE_ML = 0.03, 0.9, 1.0


def run(*, quick: bool = False) -> Report:
    """Selection with two ResNet-8 peers, reading a pool, and BADGE.

    Args:
        quick: Few samples.
    """
    with one_thread():
        parts = [_selection(_QUICK if quick else _POOL), _inference(quick=quick)]
        if find_spec("skactiveml"):
            parts.append(_badge(quick=quick))
    return Report(
        "selection",
        describe(),
        [row for rows, _ in parts for row in rows],
        [target for _, targets in parts for target in targets],
    )


def _students() -> PeerStudents:
    seeds = iter(range(2))
    return PeerStudents(
        lambda: build("resnet8", input_shape=_SHAPE, outputs=_CLASSES, options={}, seed=next(seeds)), 2, 0, Fitting()
    )


def _pool(samples: int) -> TensorPool:
    """Images as files have them, a byte a number."""
    draws = torch.Generator().manual_seed(0)
    return TensorPool(torch.randint(256, (samples, *_SHAPE), generator=draws, dtype=torch.uint8), 1 / 255)


def _selection(samples: int) -> tuple[list[Row], list[Target]]:
    nothing = Labelled(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    students, pool = _students(), _pool(samples)
    question = Question(
        pool, torch.arange(samples), nothing, min(_BUDGET, samples), _CLASSES, nn.Identity(), students=students
    )
    with Stopwatch(students) as forward:
        began = time.perf_counter()
        choose(strategy("peer_study"), question)
        whole = time.perf_counter() - began
        reading = time.perf_counter()
        in_blocks(pool, question.candidates, lambda inputs: inputs.flatten(start_dim=1)[:, 0])
        reading = time.perf_counter() - reading
    base = Row(f"two ResNet-8 peers over {samples:,} images", forward.seconds, "s")
    rest = whole - forward.seconds
    rows = [base, Row("reading the pool", reading, "s").over(base), Row("all but the peers", rest, "s").over(base)]
    target = Target.at_most(
        "scores and selection, with reading the pool, over the forward pass", _MOST_OF_FORWARD, rest / forward.seconds
    )
    return rows, [target]


def _inference(*, quick: bool) -> tuple[list[Row], list[Target]]:
    samples = _QUICK if quick else 2 * BLOCK
    students, pool = _students(), _pool(samples)
    everything = torch.arange(samples)
    bare = pool.read(everything)

    def in_memory() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            for some in bare.split(BLOCK):
                students(some)
        return time.perf_counter() - began

    def from_pool() -> float:
        began = time.perf_counter()
        in_blocks(pool, everything, lambda inputs: students(inputs).transpose(0, 1))
        return time.perf_counter() - began

    found = interleaved({"bare": in_memory, "pool": from_pool}, repeats=2 if quick else 5)
    base = Row("the bare peers, batches of 1,024", samples / found["bare"], "1/s")
    rows = [base, Row("a pool through the peers", samples / found["pool"], "1/s").over(base)]
    return rows, [
        Target.at_least("pool inference over the bare model", _LEAST_THROUGHPUT, found["bare"] / found["pool"])
    ]


def _badge(*, quick: bool) -> tuple[list[Row], list[Target]]:
    """On the same features: the task model is a last layer alone."""
    samples, hidden, budget = (200, 16, 5) if quick else (5000, 512, 100)
    draws = torch.Generator().manual_seed(0)
    points, layer = torch.randn(samples, hidden, generator=draws), nn.Linear(hidden, _CLASSES)
    known = Labelled(torch.arange(20), torch.arange(20) % _CLASSES)
    question = Question(TensorPool(points), torch.arange(20, samples), known, budget, _CLASSES, layer)

    def by(name: str) -> float:
        began = time.perf_counter()
        choose(strategy(name), question)
        return time.perf_counter() - began

    ours, theirs = "badge", "skactiveml:badge"
    found = interleaved({ours: lambda: by(ours), theirs: lambda: by(theirs)}, repeats=2 if quick else 5)
    base = Row(f"scikit-activeml's BADGE, {budget} of {samples:,}, {hidden} features", found[theirs], "s")
    rows = [base, Row("BADGE without the outer products", found[ours], "s").over(base)]
    if is_measurable():
        formed = Row("the outer products would take", _bytes(samples, hidden * _CLASSES), "MB")
        memory = PeakMemory()
        by(ours)
        rows += [formed, Row("BADGE took", memory.growth() / 1e6, "MB").over(formed)]
    return rows, [Target.at_most("BADGE over scikit-activeml's", _MOST_OVER_ACTIVE_ML, found[ours] / found[theirs])]


def _bytes(samples: int, numbers: int) -> float:
    """In MB, of doubles."""
    return samples * numbers * torch.empty((), dtype=torch.float64).element_size() / 1e6
