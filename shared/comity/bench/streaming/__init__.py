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
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import one_thread
from comity.bench.screening import DATA
from comity.bench.streaming.workload import Evaluation, Load, begin, evaluating, pin
from comity.errors import NodeProcessFailed
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance, Checkpoint, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.remote import RemoteProvider
from comity.session.events import Event
from comity.session.receipts import SignedStatement
from comity.transport.identity import Identity
from comity.transport.link import Link, Patience
from comity.transport.protocol import run as play

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
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    shares: dict[str, list[float]] = {way: [] for way in ways}
    with one_thread(), _provider() as ask, _on_one_core():
        for repeat in range(1 if quick else 5):
            for way, (evaluation, streams) in ways.items():
                found, share = _session(load.script, evaluation, ask, streams=streams)
                # The first sessions wait for what torch loads when it is first used.
                if repeat or quick:
                    seconds[way] += found
                    shares[way].append(share)
    base, screened, streaming = (Row(f"round of {load.name}, {way}", median(seconds[way]), "s") for way in ways)
    cores = [Row(f"cores that were busy, {way}", median(shares[way]), "cores") for way in ways]
    compared = streaming.over(base)
    target = Target.at_most("streaming over sequential phases with full evaluations", _MOST, compared.ratio or 0.0)
    again = Row("the same, compared with screened phases", streaming.median, "s").over(screened)
    return Report("streaming", machine, [base, screened.over(base), compared, again, *cores], [target])


class Sequential:
    """Implements `Assistance`; nothing of one phase begins before the one before has ended.

    Args:
        port: The provider.
    """

    def __init__(self, port: Assistance) -> None:
        self._port = port
        self._offers: list[Checkpoint] = []

    def offer(self, round: int, checkpoint: Checkpoint) -> None:  # noqa: ARG002
        """See `Assistance.offer`; waits for the trajectory's end."""
        self._offers.append(checkpoint)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        """See `Assistance.close`."""
        for checkpoint in self._offers:
            self._port.offer(round, checkpoint)
        self._offers = []
        return self._port.close(round, count, request)

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:  # noqa: ARG002
        """See `Assistance.results`; all at once."""
        yield from list(self._port.results(round, skip))

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """See `Assistance.acknowledge`."""
        self._port.acknowledge(round, acknowledgement)


def _session(
    script: str, evaluation: Evaluation, ask: Callable[[object], dict[str, Any]], *, streams: bool
) -> tuple[list[float], float]:
    """Plays a session; the seconds of its rounds, and the processor time of both over the time that they took."""
    rounds: list[float] = []

    def observe(event: Event) -> None:
        if event.kind == "round-finished":
            rounds.append(float(str(event.fields["seconds"])))

    seat, _ = begin(script)
    there = ask({"script": script, "evaluation": evaluation})
    before = time.process_time()
    with Link(Identity("learner"), "provider", there["address"], Patience()) as link, evaluating(evaluation):
        link.enter(seat.contract.session, seat.contract.hash)
        party = Party(seat.task, seat.blobs, seat.journal, seat.contract, seat.own, seat.peer)
        port: Assistance = RemoteProvider(link, seat.task.layout, seat.blobs, seat.gate)
        play(Learner(party, port if streams else Sequential(port), seat.notary, observe))
    busy = time.process_time() - before + ask({})["cpu_s"] - there["cpu_s"]
    return rounds, busy / sum(rounds)


@contextmanager
def _provider() -> Iterator[Callable[[object], dict[str, Any]]]:
    """The other process, and how it is asked for something."""
    command = [sys.executable, "-m", "comity.bench.streaming.provider"]
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
