"""What a session of gradient rewards agrees on."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from comity.privacy.settings import OptimizerName
from comity.privacy.terms import PrivacyTerms
from comity.protocols.gradient_rewards.choices import (
    MOST_CLIENTS,
    CoalitionWeights,
    FreeRiders,
    Mechanism,
    Rule,
    Valuation,
)
from comity.session.stopping import StoppingTerms
from comity.training.terms import OptimizerSpec, TrainingTerms


class GradientRewardsTerms(TrainingTerms, StoppingTerms):
    """The protocol's part of a contract.

    Attributes:
        optimizer: Optimiser of the clients; it restarts in every round.
        learning_rate: In the first round, above 0.
        learning_rate_decay: What the learning rate is multiplied with from round to round, above 0.
        epochs: E, passes over a client's samples in a round.
        clients: N, clients with which the first round opens.
        min_clients: Fewest that a round is settled with when its deadline has passed. Of two, each can compute the
            other's update from the whole aggregate: every node's `policy.min_clients` (3) refuses less.
        round_deadline_s: How long a round stays open for those who are late, in seconds.
        length: Γ, length of a normalized update.
        alpha: Weight of the past in the moving average of eq. (4), 0 to 1.
        beta: Degree of altruism in eq. (5), above 0.
        floor: The least importance, 0 to 1/N.
        rule: Whose rule holds where the paper and the authors' code differ.
        valuation: What a contribution is.
        permutations: How many are drawn where contributions are sampled.
        coalition_weights: What a valuation weighs updates with.
        normalize_contributions: Bring a round's contributions to a sum of 1.
        free_riders: What follows where a client has nothing of its own.
        exclude_after: Rounds in a row in which that has to be so before a client is excluded, 2 or more.
        privacy: The noise of every client's training; None for none.
        stop_when_stalled: See `StoppingTerms`, which the server decides by.
        target: See there.
        target_metric: See there.
    """

    optimizer: OptimizerName = "sgd"
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 0.1
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 3
    clients: Annotated[int, Field(ge=2, le=10_000)]
    min_clients: Annotated[int, Field(ge=2, le=10_000)] = 3
    round_deadline_s: Annotated[float, Field(gt=0, le=1e7)] = 600.0
    length: Annotated[float, Field(gt=0, le=1e30)] = 0.5
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.95
    beta: Annotated[float, Field(gt=0, le=1e30)] = 1.0
    floor: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    rule: Rule = "paper"
    valuation: Valuation = "cosine"
    permutations: Annotated[int, Field(ge=1, le=1_000_000)] = 150
    coalition_weights: CoalitionWeights = "importance"
    normalize_contributions: bool = False
    free_riders: FreeRiders = "warn"
    exclude_after: Annotated[int, Field(ge=2, le=1000)] = 5
    privacy: PrivacyTerms | None = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if self.min_clients > self.clients:
            raise ValueError(f"min_clients is at most clients, which is {self.clients}")
        if self.floor * self.clients > 1:
            raise ValueError(f"floor is at most 1/clients, which is {1 / self.clients:g}")
        if self.valuation == "shapley" and self.clients > MOST_CLIENTS:
            raise ValueError(f"exact Shapley values are for {MOST_CLIENTS} clients at most; choose sampled")
        return self

    @property
    def participants(self) -> int:
        """How many clients join before the first round."""
        return self.clients

    @property
    def min_participants(self) -> int:
        """Fewest clients whose updates are mixed in one aggregate."""
        return self.min_clients

    @property
    def mechanism(self) -> Mechanism:
        """How contributions turn into rewards."""
        return Mechanism(
            alpha=self.alpha,
            beta=self.beta,
            floor=self.floor,
            rule=self.rule,
            valuation=self.valuation,
            permutations=self.permutations,
            coalition_weights=self.coalition_weights,
            normalize_contributions=self.normalize_contributions,
        )

    def optimizer_spec(self, round: int) -> OptimizerSpec:
        """The optimiser of a round, from 1."""
        return OptimizerSpec(self.optimizer, self.learning_rate * self.learning_rate_decay ** (round - 1))
