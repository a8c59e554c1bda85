"""Screening: what part of a full evaluation finds the checkpoint of least global loss, and that it finds the same one.

Exact screening always does; how often a race does, and with how much less work, stands beside it.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import one_thread
from comity.experiments import demo_script
from comity.node.sessions.script import Script, parse_script
from comity.protocols.assisted_learning.algorithm import Loss, Screening, argmin
from comity.protocols.assisted_learning.race import Race
from comity.protocols.assisted_learning.studies.benchmarks.trajectories import Trajectory, replay
from comity.randomness import derive, generator

DATA = "COMITY_DATA"
"""Environment variable that names the folder of the real data sets."""

_DIGITS_BLOCKS, _CIFAR_BLOCKS = (32, 8), (256, 64)
"""Samples in a block of an evaluation: as sessions have them, and a quarter of that. A checkpoint costs a block at least,
so that coarse blocks hide some of what screening saves."""

_MOST = 0.7
"""Forward passes of exact screening on CIFAR-10, as a share of a full evaluation's."""

_CIFAR = """\
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = 10
seed = {seed}
model = {{ name = "lenet5" }}
normalization = {{ mean = [0.491, 0.482, 0.447], std = [0.247, 0.243, 0.262] }}

[session.terms]
learning_rate = 0.001
batch_size = 256
iterations = 200
sampling_period = 10

[party.learner]
role = "learner"

[party.learner.data]
source = "imagefolder:{folder}"
per_class = 500
partition = {{ name = "imbalance", gamma = 0.3, share = "learner", seed = {seed} }}

[party.provider]
role = "provider"

[party.provider.data]
source = "imagefolder:{folder}"
per_class = 500
partition = {{ name = "imbalance", gamma = 0.3, share = "provider", seed = {seed} }}
"""


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark; on CIFAR-10 too where `COMITY_DATA` names a folder that holds `cifar10`.

    Args:
        quick: Two rounds on digits.
    """
    machine = describe()
    measured: dict[str, Comparison] = {}
    digits = [_digits(seed, quick=quick) for seed in range(1 if quick else 5)]
    shares: list[Target] = []
    for block in _DIGITS_BLOCKS:
        measured |= _measure(f"digits in blocks of {block}", _in_blocks(digits, block))
    folder = Path(os.environ.get(DATA, "")) / "cifar10"
    if not quick and os.environ.get(DATA) and folder.is_dir():
        cifar = [parse_script(_CIFAR.format(folder=folder.resolve(), seed=0))]
        for block in _CIFAR_BLOCKS:
            name = f"cifar10 in blocks of {block}"
            found = _measure(name, _in_blocks(cifar, block))
            measured |= found
            passes = sum(each.screening_passes for each in found.values())
            share = passes / max(1, sum(each.full_passes for each in found.values()))
            shares.append(Target.at_most(f"{name}, share of both parties' forward passes", _MOST, share))
    rows = [row for name, comparison in measured.items() for row in comparison.rows(name)]
    targets = [comparison.target(name) for name, comparison in measured.items()] + shares
    return Report("screening", machine, rows, targets)


@dataclass
class Comparison:
    """Screening against full evaluation on the trajectories seen so far.

    Attributes:
        full_s: Seconds of each full evaluation.
        screening_s: Seconds of each screening.
        full_passes: Samples evaluated by all full evaluations.
        screening_passes: Samples evaluated by all screenings.
        agreed: Trajectories in which both chose the same checkpoint.
        race_s: Seconds of each race.
        race_passes: Samples evaluated by all races.
        race_agreed: Trajectories in which a race chose what the full evaluation did.
    """

    full_s: list[float] = field(default_factory=list)
    screening_s: list[float] = field(default_factory=list)
    full_passes: int = 0
    screening_passes: int = 0
    agreed: int = 0
    race_s: list[float] = field(default_factory=list)
    race_passes: int = 0
    race_agreed: int = 0

    def examine(self, trajectory: Trajectory) -> None:
        """Evaluates a trajectory in all ways, the first in turn."""
        ways = (_evaluate_fully, _screen, _race) if len(self.full_s) % 2 else (_race, _screen, _evaluate_fully)
        done = {way: way(trajectory) for way in ways}
        full, screened, raced = done[_evaluate_fully], done[_screen], done[_race]
        self.full_s.append(full.seconds)
        self.screening_s.append(screened.seconds)
        self.full_passes += full.passes
        self.screening_passes += screened.passes
        self.agreed += full.index == screened.index
        self.race_s.append(raced.seconds)
        self.race_passes += raced.passes
        self.race_agreed += full.index == raced.index

    def rows(self, name: str) -> list[Row]:
        """What was measured: medians over the trajectories, and all passes."""
        full = Row(f"{name}, full evaluation", 1e3 * median(self.full_s), "ms")
        passes = Row(f"{name}, full evaluation, {len(self.full_s)} trajectories", self.full_passes, "passes")
        return [
            full,
            Row(f"{name}, screening", 1e3 * median(self.screening_s), "ms").over(full),
            Row(f"{name}, race", 1e3 * median(self.race_s), "ms").over(full),
            passes,
            Row(f"{name}, screening, the same trajectories", self.screening_passes, "passes").over(passes),
            Row(f"{name}, race, the same trajectories", self.race_passes, "passes").over(passes),
            Row(f"{name}, trajectories in which a race chose the best", self.race_agreed / len(self.race_s), "of 1"),
        ]

    def target(self, name: str) -> Target:
        """That the choice is always the same."""
        return Target.at_least(
            f"{name}, share of trajectories in which both choose the same", 1, self.agreed / len(self.full_s)
        )


@dataclass(frozen=True)
class Choice:
    """What an evaluation came to.

    Attributes:
        index: The checkpoint that it chose.
        passes: Samples that were passed through a model.
        seconds: Time that it took.
    """

    index: int
    passes: int
    seconds: float


def _digits(seed: int, *, quick: bool) -> Script:
    script = parse_script(demo_script("assisted_learning", seed))
    if quick:
        script.session.rounds = 2
    return script


def _in_blocks(scripts: list[Script], block: int) -> list[Script]:
    copies = [script.model_copy(deep=True) for script in scripts]
    for script in copies:
        script.session.terms["evaluation_batch_size"] = block
    return copies


def _measure(name: str, scripts: list[Script]) -> dict[str, Comparison]:
    """Runs sessions on one data set; returns what was found at each party."""
    comparisons = {"provider": Comparison(), "learner": Comparison()}

    def examine(trajectory: Trajectory) -> None:
        comparisons[trajectory.receiver].examine(trajectory)

    with one_thread():
        for script in scripts:
            replay(script, examine)
    return {f"{name}, {receiver}": comparison for receiver, comparison in comparisons.items()}


def _evaluate_fully(trajectory: Trajectory) -> Choice:
    """Evaluates every checkpoint on every sample, but one whose losses are known."""
    began = time.perf_counter()
    task, objective = trajectory.task, trajectory.terms.objective
    passes = 0
    totals = []
    for checkpoint in trajectory.checkpoints:
        if checkpoint.index == 0 and trajectory.known is not None:
            losses = trajectory.known
        else:
            losses = task.losses(trajectory.state(checkpoint.index))
            passes += task.samples
        own = Loss(float(losses.sum()), task.samples)
        totals.append(math.fsum((*checkpoint.loss.parts(objective), *own.parts(objective))))
    return Choice(argmin(totals), passes, time.perf_counter() - began)


def _screen(trajectory: Trajectory) -> Choice:
    """Chooses as a session does."""
    return _choose(trajectory, races=False)


def _race(trajectory: Trajectory) -> Choice:
    """Chooses as a session does whose contract allows a race."""
    return _choose(trajectory, races=True)


def _choose(trajectory: Trajectory, *, races: bool) -> Choice:
    began = time.perf_counter()
    task, terms = trajectory.task, trajectory.terms
    checkpoints = trajectory.checkpoints
    passes = 0

    def evaluate(index: int, samples: Int[Tensor, " block"]) -> Float[Tensor, " block"]:
        nonlocal passes
        passes += len(samples)
        return task.losses(trajectory.state(index), samples)

    hardness = trajectory.known
    if hardness is None:
        hardness = task.losses(trajectory.state(0))
        passes += task.samples
    block, objective = terms.evaluation_batch_size, terms.objective
    screening: Screening | Race
    if races:
        order = torch.randperm(task.samples, generator=generator(derive(0, "race")))
        screening = Race(evaluate, order, block=block, objective=objective)
    else:
        screening = Screening(evaluate, hardness, block=block, objective=objective)
    for checkpoint in checkpoints:
        screening.add(checkpoint.index, checkpoint.loss, hardness if checkpoint.index == 0 else None)
    return Choice(screening.select().index, passes, time.perf_counter() - began)
