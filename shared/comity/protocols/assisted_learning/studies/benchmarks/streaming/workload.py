"""The session that both processes build for themselves from one script."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal

from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.protocols.assisted_learning import algorithm
from comity.session.contexts import PeerContext
from comity.session.events import ignore
from comity.simulation.in_process import parties

Evaluation = Literal["full", "screened"]
"""Whether a receiver evaluates every checkpoint on every sample, or leaves out what cannot win."""

_SCRIPT = """\
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = {rounds}
model = {model}

[session.terms]
batch_size = {batch}
evaluation_batch_size = {batch}
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


@dataclass(frozen=True)
class Load:
    """A kind of round, of two parties with as many samples each.

    Attributes:
        name: What people call it.
        model: The model, as in a script.
        data: The data, as in a script.
        batch: Samples in a batch and in a block of an evaluation.
        period: The sampling period I.
        checkpoints: Checkpoints of each party.
        rounds: Rounds of a session.
    """

    name: str
    model: str
    data: str
    batch: int
    period: int
    checkpoints: int
    rounds: int

    @property
    def script(self) -> str:
        """The script of a session of such rounds."""
        return _SCRIPT.format(**asdict(self), iterations=2 * self.period * self.checkpoints)


@cache
def _parties(script: str) -> tuple[LocalParty, LocalParty]:
    """The learner and the provider, whose data is loaded once."""
    (initiator,), (acceptor,) = parties(parse_script(script))
    return initiator, acceptor


def begin(script: str, session: str) -> tuple[PeerContext, PeerContext]:
    """Both contexts of a session, of which a process uses one."""
    initiator, acceptor = _parties(script)
    contract, definition = draft_contract(parse_script(script), initiator, session)
    own, peer = initiator.membership(definition.initiator), acceptor.membership(definition.acceptor)
    return (
        initiator.peer_context(initiator.session_context(contract, own, ignore), peer),
        acceptor.peer_context(acceptor.session_context(contract, peer, ignore), own),
    )


@contextmanager
def evaluating(how: Evaluation) -> Iterator[None]:
    """Lets no checkpoint be abandoned, for a full evaluation."""
    before = algorithm.ABANDON_MARGIN
    if how == "full":
        algorithm.ABANDON_MARGIN = math.inf
    try:
        yield
    finally:
        algorithm.ABANDON_MARGIN = before


def pin(number: int) -> None:
    """Keeps this process on one core, where the system can; threads that it has already stay where they are."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
