"""Strategies that give each candidate a score of its own and take the greatest; of a block only scores stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from comity.errors import InvalidValue
from comity.protocols.peer_study.algorithm import discrepancy, select
from comity.protocols.peer_study.pool import in_blocks
from comity.protocols.peer_study.strategies.strategy import Question
from comity.randomness import derive, generator


class PeerStudy:
    """What the peers disagree on most, eq. (6); with one peer, where its entropy is greatest."""

    needs_pool_on_server: ClassVar[bool] = False
    uses_students: ClassVar[bool] = True

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """The greatest discrepancies."""
        students = question.students
        if students is None:
            raise InvalidValue("Peer study's students", expected="peers", received="none")
        return greatest(question, lambda inputs: discrepancy(students(inputs)))


class Random:
    """Any, each with the same chance."""

    needs_pool_on_server: ClassVar[bool] = False
    uses_students: ClassVar[bool] = False

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """A draw by the question's seed, whatever order the candidates come in."""
        draws = generator(derive(question.seed, "random"))
        ordered = question.candidates.sort().values
        return ordered[torch.randperm(len(ordered), generator=draws)[: question.budget]]


class Entropy:
    """Where the task model is least sure: the entropy of its answer."""

    needs_pool_on_server: ClassVar[bool] = True
    uses_students: ClassVar[bool] = False

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """The greatest entropies."""
        # Of one model the discrepancy is its entropy.
        return greatest(question, lambda inputs: discrepancy(question.task_model(inputs)[None]))


def greatest(question: Question, score: Callable[[Tensor], Tensor]) -> Int[Tensor, " budget"]:
    """The candidates with the greatest scores, of equal ones those of least index.

    Args:
        question: Whose candidates.
        score: Of a block, one number a sample.
    """
    candidates = question.candidates
    scores = in_blocks(question.pool, candidates, score, question.block)
    return candidates[select(scores, question.budget, torch.arange(len(candidates)))]
