"""What a session of assisted learning agrees on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from comity.contract import Agreed
from comity.privacy.terms import PrivacyTerms
from comity.protocols.assisted_learning.choices import Objective, Order, TrajectoryEncoding
from comity.training.terms import OptimizerName, OptimizerSpec, TrainingTerms


class PolicyGradientTerms(Agreed):
    """How policies are trained and compared.

    Attributes:
        discount: γ of the return.
        baseline: What is taken off a return in training: nothing, as the paper writes it; the mean of the batch's other
            returns; or the mean of the batch, the rest divided by its standard deviation.
        evaluation_episodes: Episodes of each of a party's games in an evaluation; always the same.
        best_return: A discounted return that no episode exceeds, at or above 0; an episode's loss is what its own lacks of
            it. A script may leave it out: then it is what the asking party's environment says.
    """

    discount: Annotated[float, Field(gt=0, le=1)] = 0.99
    baseline: Literal["none", "mean", "normalized"] = "mean"
    evaluation_episodes: Annotated[int, Field(ge=1, le=2**17)] = 20
    best_return: float | None = None


class AssistedLearningTerms(TrainingTerms):
    """The protocol's part of a contract.

    Attributes:
        optimizer: Optimiser of both parties; it restarts in every phase.
        learning_rate: η, above 0; beyond 1e30 a step would not fit a float32.
        iterations: T + T', local iterations of both parties in a round; split in proportion to their samples.
        sampling_period: I: every I-th model of a local training is a checkpoint.
        objective: How the parties' losses make the global loss.
        order: Which provider trains first in a round, where there are several.
        trainers: How many providers train in a round, in that order; the others only say their losses. 0 for all.
        screening: How a receiver chooses: `exact` finds the checkpoint of least global loss; `race` drops those that are
            behind by the statistics of some samples, never the first, and nearly always chooses the same.
        trajectory_encoding: How checkpoints cross; `delta` costs computation and loses nothing.
        policy_gradient: How policies are trained; for tasks of kind `reinforcement`, and no others. `batch_size` is then
            the episodes of an update, and `evaluation_batch_size` those that are played at once.
        privacy: The noise; None for none.
    """

    optimizer: OptimizerName = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 1e-3
    iterations: Annotated[int, Field(ge=2, lt=2**32)] = 2000
    sampling_period: Annotated[int, Field(ge=1, lt=2**32)] = 50
    objective: Objective = "sum"
    order: Order = "listed"
    trainers: Annotated[int, Field(ge=0, lt=2**32)] = 0
    screening: Literal["exact", "race"] = "exact"
    trajectory_encoding: TrajectoryEncoding = "dense"
    policy_gradient: PolicyGradientTerms | None = None
    privacy: PrivacyTerms | None = None

    def most_losses(self, rounds: int, acceptors: int) -> int:
        """See `Terms.most_losses`: one for each checkpoint that is offered, or that several ask a party to assess."""
        longest = -(-(self.iterations - 1) // self.sampling_period)
        trajectories = (self.trainers or acceptors) + 1 if acceptors > 1 else 1
        return rounds * trajectories * longest

    @property
    def optimizer_spec(self) -> OptimizerSpec:
        """The optimiser that both parties use."""
        return OptimizerSpec(self.optimizer, self.learning_rate)
