"""What clients and server exchange, and the terms that they agree on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, Protocol, Self

import torch
from pydantic import Field, model_validator

from comity.contract import Json, TrainingTerms
from comity.ledger.receipts import SignedStatement, subject_of
from comity.protocols.gradient_rewards.algorithm import CoalitionWeights, Mechanism, Valuation
from comity.protocols.gradient_rewards.contribution import MOST_CLIENTS
from comity.protocols.gradient_rewards.rewards import Rule
from comity.tensors import Layout
from comity.training import OptimizerSpec
from comity.training.optimizers import OptimizerName

NAME = "gradient_rewards"


class GradientRewardsTerms(TrainingTerms):
    """The protocol's part of a contract.

    Attributes:
        optimizer: Optimiser of the clients; it restarts in every round.
        learning_rate: In the first round, above 0.
        learning_rate_decay: What the learning rate is multiplied with from round to round, above 0.
        epochs: E, passes over a client's samples in a round.
        clients: N, clients with which the first round opens.
        min_clients: Fewest that a round is settled with when its deadline has passed. Of two, each can reckon the
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
    def initiators(self) -> int:
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


def update_layout(parameters: int) -> Layout:
    """Layout of an update: all parameters in a row, float32, in the order of the model's layout."""
    return Layout.of({"update": torch.empty(parameters)})


@dataclass(frozen=True, slots=True)
class Terms:
    """What the server states about a client's reward.

    Attributes:
        round: The round.
        contribution: ψ or φ of the client's update.
        importance: r after the round.
        fraction: q, the share of the aggregate's entries that the client gets, 0 to 1.
        kept: How many entries these are.
        entries: Digest of their sparse encoding.
        size: Length of the encoding, in bytes.
    """

    round: int
    contribution: float
    importance: float
    fraction: float
    kept: int
    entries: bytes
    size: int

    @property
    def content(self) -> dict[str, Json]:
        """All of it as a JSON object: what stands in both ledgers."""
        return asdict(self) | {"entries": self.entries.hex()}

    @property
    def subject(self) -> bytes:
        """BLAKE3 over its content: what the server signs."""
        return subject_of(self.content)


@dataclass(frozen=True, slots=True)
class Reward:
    """What a client gets for a round.

    Attributes:
        terms: What the server states.
        statement: That, signed.
    """

    terms: Terms
    statement: SignedStatement


@dataclass(frozen=True, slots=True)
class News:
    """What happened to a round.

    Attributes:
        kind: It is open for updates, it is settled, or all rounds are over.
        round: The round; the last one where all are over.
        reward: What the client gets, of a settled round in which it took part.
    """

    kind: Literal["opened", "settled", "over"]
    round: int
    reward: Reward | None = None


class Rewarding(Protocol):
    """The port: what a server does for a client. Every method may be repeated without harm."""

    def news(self, after: int) -> Iterator[News | None]:
        """What happens to rounds, from the first that the client is not done with.

        Args:
            after: The last round that the client is done with; 0 for none.

        Yields:
            News in order; None where there is none until others have had their turn.
        """

    def submit(self, round: int, update: bytes) -> None:
        """Gives the server the client's update of a round.

        Args:
            round: The round.
            update: Digest of the normalized update, which is among the session's blobs.

        Raises:
            RoundOutOfOrder: The round is not open any more.
            ConflictingOffer: Another update was submitted already.
        """

    def confirm(self, round: int, request: SignedStatement) -> SignedStatement:
        """Signs for an update that the server took, which then takes part in the round; charges the round once.

        Args:
            round: The round.
            request: The client's `request` about the update's digest.

        Returns:
            The server's `receipt` about the same.

        Raises:
            RoundOutOfOrder: The server took no update of the client's in that round, or it is long over.
            ReceiptInvalid: The request is not the client's, or about another update.
        """

    def fetch(self, reward: Reward) -> bytes:
        """The sparse encoding of a reward's entries.

        Raises:
            UnknownBlob: The server has dropped it: another round was settled since.
        """

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        """Tells the server that the client has its reward.

        Raises:
            RoundOutOfOrder: There is no such reward any more.
            ReceiptInvalid: It is not the client's, or about another reward.
        """
