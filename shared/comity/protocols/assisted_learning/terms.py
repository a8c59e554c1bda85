"""What a session of assisted learning agrees on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from comity.contract import Agreed
from comity.privacy.settings import OptimizerName
from comity.privacy.terms import PrivacyTerms
from comity.protocols.assisted_learning.choices import Objective, Order, TrajectoryEncoding
from comity.session.stopping import StoppingTerms
from comity.training.terms import Decay, OptimizerSpec, Sampling, TrainingTerms


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


class AssistedLearningTerms(TrainingTerms, StoppingTerms):
    """The protocol's part of a contract.

    Attributes:
        optimizer: Optimiser of both parties; it restarts in every phase.
        learning_rate: η, above 0; beyond 1e30 a step would not fit a float32.
        iterations: T + T', local iterations of both parties in a round; split in proportion to their samples.
        learner_iterations: T, where it is no share of these.
        provider_iterations: T', of each provider, where it is no share of these.
        momentum: Of `sgd`, from 0 to below 1.
        weight_decay: What each weight is pulled with towards 0, at or above 0; apart from the gradient with `adam` (AdamW).
        learning_rate_decay: What the learning rate is multiplied with from round to round, above 0.
        decay: How it falls within a local training: `constant`, `linear` or `cosine`.
        last_share: The share of it that is left at the end of a local training, where it falls.
        sampling: How batches are drawn: `uniform`, or `balanced`: each class as likely as any that the party has.
        select_on: On which samples checkpoints are compared: `training`, or `validation`: those that each party holds out.
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
        stop_when_stalled: See `StoppingTerms`, which the learner decides by.
        target: See there.
        target_metric: See there.
    """

    optimizer: OptimizerName = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 1e-3
    iterations: Annotated[int, Field(ge=2, lt=2**32)] = 2000
    learner_iterations: Annotated[int, Field(ge=1, lt=2**32)] | None = None
    provider_iterations: Annotated[int, Field(ge=1, lt=2**32)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    decay: Decay = "constant"
    last_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    sampling: Sampling = "uniform"
    select_on: Literal["training", "validation"] = "training"
    sampling_period: Annotated[int, Field(ge=1, lt=2**32)] = 50
    objective: Objective = "sum"
    order: Order = "listed"
    trainers: Annotated[int, Field(ge=0, lt=2**32)] = 0
    screening: Literal["exact", "race"] = "exact"
    trajectory_encoding: TrajectoryEncoding = "dense"
    policy_gradient: PolicyGradientTerms | None = None
    privacy: PrivacyTerms | None = None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.sampling_period > self.longest:
            raise ValueError(
                f"a sampling_period of at most {self.longest}, not {self.sampling_period}: nothing would be trained"
            )
        if self.momentum and self.optimizer != "sgd":
            raise ValueError("momentum is for sgd; adam has its own")
        if self.sampling == "balanced" and self.privacy is not None:
            raise ValueError(
                "an epsilon is reckoned for samples that are drawn alike: sampling is uniform with privacy"
            )
        return self

    @property
    def longest(self) -> int:
        """Most iterations of any party's local training."""
        return max(self.learner_iterations or self.iterations - 1, self.provider_iterations or self.iterations - 1)

    def of_role(self, role: str) -> int | None:
        """T or T' where the terms say it; None where it is a share of `iterations`."""
        return self.learner_iterations if role == "learner" else self.provider_iterations

    def most_losses(self, rounds: int, acceptors: int) -> int:
        """See `Terms.most_losses`: one for each checkpoint that is offered, or that several ask a party to assess."""
        longest = -(-self.longest // self.sampling_period)
        trajectories = (self.trainers or acceptors) + 1 if acceptors > 1 else 1
        return rounds * trajectories * longest

    def optimizer_spec(self, round: int) -> OptimizerSpec:
        """The optimiser that both parties use in a round, from 1."""
        rate = self.learning_rate * self.learning_rate_decay ** (round - 1)
        return OptimizerSpec(
            self.optimizer,
            rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay=self.decay,
            last_share=self.last_share,
        )
