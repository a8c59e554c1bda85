"""What sessions agree on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comity.contract import Contract, Terms


class VotingTerms(Terms):
    """What is the same for a student's session and a pool.

    Attributes:
        queries: Inputs that are asked for in a round.
    """

    queries: Annotated[int, Field(ge=1, le=10_000)] = 8


class TeacherVotesTerms(VotingTerms):
    """A student's part of a contract.

    Attributes:
        steps: Steps that the student makes on the labels of a round.
        scored: Whether teachers say by how much they are for each class.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] = 4
    scored: bool = False

    @property
    def without(self) -> frozenset[str]:
        """See `Terms.without`."""
        return frozenset() if self.scored else frozenset({"score"})


class QuestionTerms(VotingTerms):
    """The questions' part of a contract; `queries` are bought."""


class VotePoolTerms(VotingTerms):
    """A pool's part of a contract.

    Attributes:
        clients: Clients with which the first round opens.
    """

    clients: Annotated[int, Field(ge=2, le=1000)] = 3

    @property
    def participants(self) -> int:
        """See `Terms.participants`."""
        return self.clients

    @property
    def min_participants(self) -> int:
        """See `Terms.min_participants`."""
        return self.clients


def voting_terms(contract: Contract) -> VotingTerms:
    """The terms of a contract."""
    if not isinstance(contract.terms, VotingTerms):
        raise TypeError(f"the terms are those of {contract.protocol}")
    return contract.terms
