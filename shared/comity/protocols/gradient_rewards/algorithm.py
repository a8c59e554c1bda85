"""A round at the server: updates come in, contributions are valued, importance is updated, rewards go out.

The server's pseudo-code of Xu et al., "Gradient-Driven Rewards to Guarantee Fairness in Collaborative Machine Learning",
NeurIPS 2021, section 3.4. Its two halves are in `contribution` and `rewards`; this is how they go together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from comity.errors import InvalidValue, MalformedMessage
from comity.protocols.gradient_rewards.choices import Mechanism
from comity.protocols.gradient_rewards.contribution import (
    cosine_gradient_shapley,
    sampled_cosine_gradient_shapley,
)
from comity.protocols.gradient_rewards.inner_products import cosines_with, gram
from comity.protocols.gradient_rewards.rewards import (
    SparseUpdate,
    reward_fractions,
    sparsify_for_all,
    update_importance,
)


@dataclass(frozen=True, eq=False)
class ServerState:
    """What a session knows of its clients between rounds.

    Attributes:
        first_weights: Each client's weight before it is valued for the first time, float64 with a sum of 1.
        importance: r, float64, with a sum of 1 over those who have not left; a client that has not been valued has its
            first weight, and one that has left what it had.
        valued: Whether a client has been valued.
        left: The clients that have left, ascending.
    """

    first_weights: Float[Tensor, " clients"]
    importance: Float[Tensor, " clients"]
    valued: Tensor
    left: tuple[int, ...] = ()

    @classmethod
    def first(cls, sizes: Sequence[float]) -> ServerState:
        """Before the first round, where the aggregate goes by the sizes of the clients' data.

        Eq. (4) begins with r = 0, with which eq. (1) has no first aggregate; the authors' code has this one.

        Args:
            sizes: Samples of each client, or any other weights above 0.

        Raises:
            InvalidValue: There is no client, or a size is out of range.
        """
        if not sizes or not all(0 < size < math.inf for size in sizes):
            raise InvalidValue("Sizes of the clients' data", expected="numbers above 0", received=list(sizes))
        weights = torch.tensor(sizes, dtype=torch.float64)
        weights /= weights.sum()
        return cls(weights, weights, torch.zeros(len(sizes), dtype=torch.bool))

    def without(self, left: Sequence[int]) -> ServerState:
        """The same after these have left, and others of `left` have come back.

        What those have goes to the others in proportion to what they have, who then have a sum of 1 as before: else
        nobody but the most important client would ever get as much of the aggregate again. One that comes back has what
        it had, beside the others'.

        Raises:
            InvalidValue: They are not clients, ascending, or nobody else is left.
        """
        gone, clients = tuple(left), len(self.importance)
        if list(gone) != sorted({*gone} & {*range(clients)}) or len(gone) == clients:
            raise InvalidValue("Clients that have left", expected="some of them, ascending", received=[*gone])
        if not gone and not self.left:
            # As the paper has it, to the last bit.
            return self
        here = torch.ones(clients, dtype=torch.bool)
        here[list(gone)] = False
        importance = torch.where(here, self.importance / self.importance[here].sum(), self.importance)
        return ServerState(self.first_weights, importance, self.valued, gone)

    def joined(self, newcomers: int) -> ServerState:
        """The same after others have joined, who come last.

        Each weighs as much as the mean of all clients, whatever it says of the size of its data: one that could say so
        later than the others would outweigh what they have built up. The others have the rest in the proportions
        that they had.

        Args:
            newcomers: How many have joined, 1 or more.
        """
        clients = len(self.importance)
        rest = clients / (clients + newcomers)
        new = torch.full((newcomers,), 1 / (clients + newcomers), dtype=torch.float64)
        return ServerState(
            torch.cat([self.first_weights * rest, new]),
            torch.cat([self.importance * rest, new]),
            torch.cat([self.valued, torch.zeros(newcomers, dtype=torch.bool)]),
            self.left,
        )


@dataclass(frozen=True, eq=False)
class RoundResult:
    """What a round came to.

    Attributes:
        present: The clients that took part, ascending; `contribution`, `fractions` and `rewards` are in their order.
        contribution: psi or phi, float64.
        state: The session's clients after the round, also those that did not take part.
        fractions: q, the share of the aggregate that each gets, float64.
        aggregate: u_N.
        rewards: What each gets of it.
    """

    present: tuple[int, ...]
    contribution: Float[Tensor, " present"]
    state: ServerState
    fractions: Float[Tensor, " present"]
    aggregate: Float[Tensor, " parameters"]
    rewards: tuple[SparseUpdate, ...]


def aggregate(
    updates: Float[Tensor, "clients parameters"], weights: Float[Tensor, " clients"]
) -> Float[Tensor, " parameters"]:
    """The weighted sum of updates, eq. (1).

    It is added up client by client, so that no entry depends on how many threads there are or where it stands.

    Args:
        updates: One update a row.
        weights: What each is multiplied with.

    Examples:
        >>> aggregate(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.75, 0.25]))
        tensor([0.7500, 0.2500])
    """
    total = torch.zeros_like(updates[0])
    for update, weight in zip(updates, weights.tolist(), strict=True):
        total.add_(update, alpha=weight)
    return total


def aggregate_round(  # noqa: PLR0913
    updates: Float[Tensor, "present parameters"],
    state: ServerState,
    mechanism: Mechanism,
    *,
    present: Sequence[int] | None = None,
    shares: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> RoundResult:
    """A round: contributions, importance, and a reward for every client that took part.

    A client that took no part keeps its importance: the others share what they had together. One that has left (see
    `ServerState.without`) counts for nothing.

    Args:
        updates: Normalized updates (see `normalize_update`) of the clients that took part, one a row, on the CPU.
        state: What the round before ended in.
        mechanism: How contributions turn into rewards.
        present: Which clients took part, ascending; all where left out.
        shares: What part of a client each of those counts as that took part, 0 to 1, in the aggregate and in what it
            contributed; each as one where left out.
        sizes: Entries of each tensor in an update; needed by the reference rule alone.
        generator: On the CPU; needed by sampled contributions alone.

    Raises:
        InvalidValue: Something does not fit together, or the weighted updates cancel.
        NonFiniteValue: A value is NaN or infinite.
        MalformedMessage: An update is all zeros.

    Examples:
        Two clients agree, a third goes another way: it is paid less of the aggregate.

        >>> updates = torch.tensor([[3.0, 1.0, 0, 0], [3.0, 0, 1.0, 0], [0, 0, 1.0, 3.0]])
        >>> updates = updates / updates.norm(dim=1, keepdim=True)
        >>> found = aggregate_round(updates, ServerState.first([100, 100, 100]), Mechanism(alpha=0.0))
        >>> found.state.importance
        tensor([0.3800, 0.4000, 0.2200], dtype=torch.float64)
        >>> [len(reward.values) for reward in found.rewards]
        [3, 4, 2]
    """
    clients = len(state.importance)
    here = tuple(range(clients)) if present is None else tuple(present)
    possible = {*range(clients)} - {*state.left}
    if not here or list(here) != sorted({*here} & possible) or len(updates) != len(here):
        raise InvalidValue(
            "Clients that took part",
            expected=f"some of {', '.join(map(str, sorted(possible)))}, ascending, with an update each",
            received=f"{list(here)} with {len(updates)} updates",
        )
    for client, update in zip(here, updates, strict=True):
        # A length may be lost to rounding; it is far faster to find than a value that is not 0.
        if not float(update.norm()) > 0 and not bool(update.any()):
            action = "train before sending"
            raise MalformedMessage(
                f"The update of client {client}", expected="a direction", received="zeros only", action=action
            )
    if shares is not None and (
        len(shares) != len(here) or not all(0 <= each <= 1 for each in shares) or not any(shares)
    ):
        raise InvalidValue(
            "Parts that clients count as", expected=f"{len(here)} from 0 to 1, one above 0", received=[*shares]
        )
    places = torch.tensor(here)
    before = state.importance[places]
    counted = torch.ones(len(here), dtype=torch.float64) if shares is None else torch.tensor(shares).to(torch.float64)
    weights = before * counted / (before * counted).sum()
    total = aggregate(updates, weights)
    if mechanism.coalition_weights == "importance":
        contribution = _value(updates, weights, total, mechanism, generator)
    else:
        fixed = state.first_weights[places] * counted
        contribution = _value(updates, fixed, aggregate(updates, fixed), mechanism, generator)

    contribution = contribution * counted
    importance = state.importance.clone()
    importance[places] = _share_importance(state, places, contribution, mechanism)
    valued = state.valued.clone()
    valued[places] = True
    # Shares go by the greatest importance of those who are still here.
    paid = importance.index_fill(0, torch.tensor(state.left, dtype=torch.int64), 0.0)
    fractions = reward_fractions(paid, mechanism.beta)[places]
    rewards = sparsify_for_all(total, fractions.tolist(), rule=mechanism.rule, sizes=sizes)
    after = ServerState(state.first_weights, importance, valued, state.left)
    return RoundResult(here, contribution, after, fractions, total, tuple(rewards))


def _value(
    updates: Float[Tensor, "present parameters"],
    weights: Float[Tensor, " present"],
    everybody: Float[Tensor, " parameters"],
    mechanism: Mechanism,
    generator: torch.Generator | None,
) -> Float[Tensor, " present"]:
    match mechanism.valuation:
        case "cosine":
            return cosines_with(updates, everybody)
        case "shapley":
            return cosine_gradient_shapley(gram(updates), weights)
    if generator is None:
        raise InvalidValue("Sampled contributions", expected="a generator", received=None)
    return sampled_cosine_gradient_shapley(gram(updates), weights, mechanism.permutations, generator)


def _share_importance(
    state: ServerState, places: Tensor, contribution: Float[Tensor, " present"], mechanism: Mechanism
) -> Float[Tensor, " present"]:
    """Eq. (4) among the clients that took part, who keep the sum that they had together."""
    together = float(state.importance[places].sum())
    # The moving average begins with 0, whatever the weight in the first aggregate was.
    past = torch.where(state.valued[places], state.importance[places] / together, 0.0)
    if mechanism.normalize_contributions:
        positive = contribution.clamp(min=0.0)
        contribution = positive / positive.sum() if bool(positive.any()) else past
    floor = min(mechanism.floor / together, 1 / len(places))
    return together * update_importance(past, contribution, mechanism.alpha, floor, rule=mechanism.rule)
