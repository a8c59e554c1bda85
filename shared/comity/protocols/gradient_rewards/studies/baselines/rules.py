"""The baselines as rules of a federation, by the names that Tables 1 to 3 give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from comity.protocols.gradient_rewards import sparsify_for_all
from comity.protocols.gradient_rewards.studies.baselines import averaging, shares, values
from comity.protocols.gradient_rewards.studies.federation import Payment, Round, Rule, Vector
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.randomness import derive, generator

_EXACT = 6
"""Most clients whose coalitions are all measured; the paper samples from 10 on."""
_PERMUTATIONS = 10
_Q = 0.1
"""q of q-FFL; the paper names none, and this is the least that Li et al. recommend."""


def _everything(aggregate: Vector, clients: int) -> Payment:
    return Payment(aggregate, [aggregate] * clients)


def _sparse(aggregate: Vector, fractions: shares.Shares) -> Payment:
    rewards = sparsify_for_all(aggregate, fractions.clamp(0.0, 1.0).tolist())
    return Payment(aggregate, [reward.dense() for reward in rewards])


def _average(round: Round) -> Vector:
    """u_N of eq. (1), with weights by sample counts."""
    return averaging.weighted_sum(round.updates, averaging.data_weights(round.sizes))


@dataclass
class Plain:
    """A rule that keeps nothing from round to round."""

    way: Callable[[Round], Payment]

    def pay(self, round: Round) -> Payment:
        """See `Rule`."""
        return self.way(round)


@dataclass
class Reputation:
    """CFFL: the largest entries, as many as the reputation says; those of too low a reputation are expelled."""

    _reputation: Float[Tensor, " clients"] | None = field(default=None)

    def pay(self, round: Round) -> Payment:
        """See `Rule`."""
        clients = len(round.sizes)
        before = self._reputation if self._reputation is not None else torch.full((clients,), 1 / clients).double()
        accuracies = [round.accuracy(round.server + update) for update in round.differences]
        reputation = shares.expelled(shares.update_reputation(before, accuracies))
        self._reputation = reputation
        weights = averaging.data_weights(round.sizes) * (reputation > 0)
        aggregate = averaging.weighted_sum(round.updates, weights / weights.sum())
        paid = _sparse(aggregate, shares.by_value(reputation))
        own = zip(reputation.tolist(), paid.rewards, round.differences, strict=True)
        # Whoever was expelled goes on alone.
        return Payment(aggregate, [reward if held else alone for held, reward, alone in own])


def baselines(terms: GradientRewardsTerms, seed: int) -> Mapping[str, Rule]:
    """All baselines, new, for one session of these terms."""

    def q_fair(round: Round) -> Payment:
        step = averaging.q_fair_step(round.differences, round.losses(), _Q, terms.learning_rate)
        return _everything(step, len(round.sizes))

    def contribution_index(round: Round) -> Payment:
        weights = averaging.data_weights(round.sizes)

        def worth(coalition: tuple[int, ...]) -> float:
            model = round.server
            if coalition:
                members = list(coalition)
                share = weights[members] / weights[members].sum()
                model = model + averaging.weighted_sum(round.updates[members], share)
            return round.accuracy(model)

        clients = len(round.sizes)
        index = (
            values.shapley_values(worth, clients)
            if clients <= _EXACT
            else values.sampled_shapley_values(worth, clients, _PERMUTATIONS, round.draws)
        )
        return _sparse(_average(round), shares.by_value(index))

    def round_robin(round: Round) -> Payment:
        clients = len(round.sizes)
        turn = generator(derive(seed, "round robin", (round.number - 1) // clients))
        return _sparse(_average(round), shares.in_turn(round.number, clients, turn))

    def distance(round: Round) -> Payment:
        plain = averaging.weighted_sum(round.differences, averaging.data_weights(round.sizes))
        return _sparse(_average(round), shares.by_distance(round.differences, plain))

    return MappingProxyType(
        {
            "FedAvg": Plain(lambda each: _everything(_average(each), len(each.sizes))),
            "q-FFL": Plain(q_fair),
            "CFFL": Reputation(),
            "ECI": Plain(contribution_index),
            "DW": Plain(lambda each: _sparse(_average(each), shares.by_size(each.sizes))),
            "RR": Plain(round_robin),
            "EU": Plain(distance),
        }
    )
