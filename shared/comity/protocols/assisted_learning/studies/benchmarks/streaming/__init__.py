"""A round whose parties work at the same time, against one in strictly sequential phases; each party on its own core.

In a sequential round the learner trains and evaluates its own trajectory, sends it, the provider evaluates it, trains and
evaluates its own, sends it, and the learner evaluates that. A session sends each checkpoint as it is made, so that the
receiver evaluates while the sender trains. The proportion of evaluation to training is that of the paper's CIFAR-10 with
25,000 samples each, batches of 256 and a checkpoint every 50 iterations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import one_thread
from comity.errors import NodeProcessFailed
from comity.ledger.receipts import SignedStatement
from comity.protocol.roles import run as play
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.calls import ProviderPort
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance, Checkpoint, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.studies.benchmarks.screening import DATA
from comity.protocols.assisted_learning.studies.benchmarks.streaming.workload import (
    Evaluation,
    Load,
    begin,
    evaluating,
    pin,
)
from comity.session.events import Event
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy

_MOST = 0.75
_STOP_S = 15.0


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark: on CIFAR-10 where `COMITY_DATA` names a folder that holds `cifar10`, else on digits.

    Args:
        quick: One short round of each kind on digits.
    """
    machine = describe()
    folder = Path(os.environ.get(DATA, "")) / "cifar10"
    if not quick and os.environ.get(DATA) and folder.is_dir():
        data = f'source = "imagefolder:{folder.resolve()}"\nper_class = 250'
        load = Load("LeNet-5 on CIFAR-10", '{ name = "lenet5" }', data, 64, period=10, checkpoints=10, rounds=2)
    else:
        data = 'source = "digits"\nper_class = 100'
        wide = '{ name = "mlp", options = { hidden = 512 } }'
        load = Load("MLP on digits", wide, data, 32, period=8, checkpoints=2 if quick else 12, rounds=1 if quick else 4)
    ways: dict[str, tuple[Evaluation, bool]] = {
        "sequential, full evaluation": ("full", False),
        "sequential, screened": ("screened", False),
        "streaming": ("screened", True),
    }
    played: dict[str, list[Played]] = {way: [] for way in ways}
    with one_thread(), _provider() as ask, _on_one_core():
        # The first session waits for what torch loads when it is first used.
        _session(load, "screened", ask, streams=True)
        for _ in range(1 if quick else 4):
            for way, (evaluation, streams) in ways.items():
                played[way].append(_session(load, evaluation, ask, streams=streams))
    seconds = {way: [second for each in played[way] for second in each.seconds] for way in ways}
    base, screened, streaming = (Row(f"round of {load.name}, {way}", median(seconds[way]), "s") for way in ways)
    cores = [Row(f"cores that were busy, {way}", median([each.busy for each in played[way]]), "cores") for way in ways]
    could = [each.overlapping for each in played["sequential, full evaluation"] if each.overlapping is not None]
    compared = streaming.over(base)
    again = Row("the same, compared with screened phases", streaming.median, "s").over(screened)
    bound = Row("what the phases' processor times leave, if they overlap without a gap", median(could), "of 1")
    target = Target.at_most("streaming over sequential phases with full evaluations", _MOST, compared.ratio or 0.0)
    return Report("streaming", machine, [base, screened.over(base), compared, again, bound, *cores], [target])


Clock = Callable[[], tuple[float, float]]
"""Processor seconds so far of the learner and of the provider."""


class Sequential:
    """Implements `Assistance`; nothing of one phase begins before the one before has ended.

    Args:
        port: The provider.
        clock: Tells what the phases cost.
    """

    def __init__(self, port: Assistance, clock: Clock) -> None:
        self._port = port
        self._clock = clock
        self._offers: list[Checkpoint] = []
        self.marks = [clock()]
        """At the beginning; and in each round when its offer is sent, with the first result, with the last, at its end."""

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        """See `Assistance.assess`."""
        return self._port.assess(round, digest)

    def offer(self, round: int, checkpoint: Checkpoint) -> None:  # noqa: ARG002
        """See `Assistance.offer`; waits for the trajectory's end."""
        self._offers.append(checkpoint)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`."""
        self.mark()
        for checkpoint in self._offers:
            self._port.offer(round, checkpoint)
        self._offers = []
        return self._port.close(round, count, request)

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:  # noqa: ARG002
        """See `Assistance.results`; all at once."""
        results = self._port.results(round, skip)
        first = next(results)
        self.mark()
        everything = [first, *results]
        self.mark()
        yield from everything

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`."""
        self._port.acknowledge(round, acknowledgement)

    def mark(self) -> None:
        """Notes what was used until now."""
        self.marks.append(self._clock())

    def overlapping(self) -> float:
        """What of the rounds' processor time is left if a receiver evaluates while a sender is busy, as a share of all."""
        phases = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(self.marks)]
        everything = sum(max(phase) for phase in phases)
        rounds = zip(*[iter(phases)] * 4, strict=True)
        needed: float = sum(max(make[0], choose[1]) + max(train[1], pick[0]) for make, choose, train, pick in rounds)
        return needed / everything


@dataclass(frozen=True)
class Played:
    """A session that was played.

    Attributes:
        seconds: Of its rounds.
        busy: Processor time of both processes over these.
        overlapping: Of a sequential one, see `Sequential.overlapping`.
    """

    seconds: list[float]
    busy: float
    overlapping: float | None


def _session(load: Load, evaluation: Evaluation, ask: Callable[[object], dict[str, Any]], *, streams: bool) -> Played:
    name = f"bench-{time.monotonic_ns()}"
    context, _ = begin(load.script, name)
    address = ask({"script": load.script, "session": name, "evaluation": evaluation})["address"]
    seconds: list[float] = []

    def clock() -> tuple[float, float]:
        return time.process_time(), ask(None)["cpu_s"]

    with PeerConnection(Identity("learner"), "provider", address, RetryPolicy()) as connection, evaluating(evaluation):
        connection.enter(context.contract.session, context.contract.hash)
        party = Party(context.task, context.blobs, context.journal, context.contract, context.own, context.peer)
        port = ProviderPort(context, RemoteChannel(connection))
        waits = Sequential(port, clock)

        def observe(event: Event) -> None:
            if event.kind == "round-finished":
                seconds.append(float(str(event.fields["seconds"])))
                if not streams:
                    waits.mark()

        play(Learner(party, [(port if streams else waits, context.receipt_book)], observe))
        busy = sum(clock()) - sum(waits.marks[0])
    return Played(seconds, busy / sum(seconds), None if streams else waits.overlapping())


@contextmanager
def _provider() -> Iterator[Callable[[object], dict[str, Any]]]:
    """The other process, and how it is asked for something."""
    command = [sys.executable, "-m", "comity.protocols.assisted_learning.studies.benchmarks.streaming.provider"]
    with subprocess.Popen(  # noqa: S603 - this package's own module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:

        def ask(request: object) -> dict[str, Any]:
            if process.stdin is None or process.stdout is None:
                raise NodeProcessFailed("the benchmark's other process has no pipes", action="run it again")
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline() or "null") or {}
            if not answer:
                what = "the benchmark's other process ended"
                raise NodeProcessFailed(what, action="see what it wrote to standard error")
            return answer

        try:
            yield ask
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _on_one_core() -> Iterator[None]:
    """This thread, and those that it starts, on one core."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    pin(0)
    try:
        yield
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
