"""What a strategy is asked, and what is made sure of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn

from comity.errors import InvalidValue, MalformedMessage
from comity.protocols.peer_study.pool import BLOCK, Pool
from comity.protocols.peer_study.students import Labelled, PeerStudents


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Which samples are to be annotated next.

    Attributes:
        pool: All that the client has.
        candidates: Who of it may be asked for: neither protected nor labelled.
        labelled: What is annotated already.
        budget: How many are asked for.
        classes: How many classes there are.
        task_model: As it was trained on what is labelled.
        students: The client's peers; None for strategies that use none.
        seed: What chance is drawn from.
        block: Samples that are read at once.
    """

    pool: Pool
    candidates: Int[Tensor, " candidates"]
    labelled: Labelled
    budget: int
    classes: int
    task_model: nn.Module
    students: PeerStudents | None = None
    seed: int = 0
    block: int = BLOCK


class Strategy(Protocol):
    """One way to choose.

    Attributes:
        needs_pool_on_server: Whether the whole pool would have to be where the task model is, which is what peer study
            does without; such a strategy is for simulations.
        uses_students: Whether peers are trained for it.
    """

    needs_pool_on_server: ClassVar[bool]
    uses_students: ClassVar[bool]

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """Indices of candidates, each once, as many as the budget says."""
        ...


def choose(strategy: Strategy, question: Question) -> Int[Tensor, " budget"]:
    """Asks a strategy, and lets nothing but candidates through.

    Raises:
        InvalidValue: There are fewer candidates than the budget, or the strategy uses students and there are none.
        MalformedMessage: The candidates are not indices of the pool, each once, or the strategy answers otherwise than
            with candidates.
    """
    candidates = question.candidates
    distinct = candidates.unique()
    if (
        candidates.ndim != 1
        or len(distinct) < len(candidates)
        or bool(((distinct < 0) | (distinct >= len(question.pool))).any())
    ):
        raise MalformedMessage(
            "Candidates",
            expected=f"indices from 0 to {len(question.pool) - 1}, each once",
            received=f"{len(candidates)}, of which {len(distinct)} differ",
        )
    if not 0 <= question.budget <= len(candidates):
        raise InvalidValue(
            "The budget",
            expected=f"0 to {len(candidates)}, the number of candidates",
            received=question.budget,
            action="lower it, or protect fewer samples",
        )
    if strategy.uses_students and question.students is None:
        raise InvalidValue(f"{type(strategy).__name__}'s students", expected="peers", received="none")
    if not question.budget:
        return candidates[:0]
    chosen = strategy.select(question)
    if len(chosen.unique()) != question.budget or not bool(torch.isin(chosen, candidates).all()):
        raise MalformedMessage(
            f"What {type(strategy).__name__} chose",
            expected=f"{question.budget} of the candidates, each once",
            received=sorted({*chosen.tolist()})[:20],
        )
    return chosen
