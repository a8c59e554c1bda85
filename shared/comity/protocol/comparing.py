"""What a party would have had alone: a protocol says what that is, so that every result can say whether help was worth it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.contract import Contract, Json, Membership


@dataclass(frozen=True)
class Alone:
    """What a party's training alone is made from.

    Attributes:
        contract: The session's contract.
        own: The party's part in it.
        peers: The others' parts.
        task: The party's local task, on its own samples or games, without noise and without a leak guard: nothing leaves.
        metrics: What the session came to, for protocols that know of a model of the party's own already.
        repeat: Which of several trainings this is, from 0; each takes the samples in another order.
    """

    contract: Contract
    own: Membership
    peers: Sequence[Membership]
    task: Any
    metrics: Mapping[str, Any]
    repeat: int


Test = Mapping[str, Json]
"""What a test says, by metric; empty where there is none."""


@dataclass(frozen=True)
class Comparing:
    """How sessions of a protocol are compared with a party alone.

    Attributes:
        alone: Trains a party alone, and says what a test of it says.
        together: What a test says of what the session came to, from its metrics.
        budget: With how much the party alone was trained, in words.
    """

    alone: Callable[[Alone], Test]
    together: Callable[[Mapping[str, Any]], Test]
    budget: str
