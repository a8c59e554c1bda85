"""What each client contributed to a round: the cosine gradient Shapley value, exact, sampled and approximated.

Xu et al., "Gradient-Driven Rewards to Guarantee Fairness in Collaborative Machine Learning", NeurIPS 2021, sections 3.2
and 3.3. A coalition's value is the cosine of its aggregate with everybody's. Cosines of weighted sums are made of inner
products, so the Gram matrix of the updates says all that there is to know, and no coalition's sum is ever formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from comity.errors import InvalidValue, NonFiniteValue
from comity.protocols.gradient_rewards.choices import MOST_CLIENTS
from comity.protocols.gradient_rewards.inner_products import cancelled

_COALITIONS = 2**16
"""Coalitions that are valued together, at most: 512 KiB for each of two tables."""
_SAMPLED = 2**21
"""Inner products that are put in the order of permutations together, at most."""
_CANCELLED = 1e-12
"""A squared length below this share of the sum of its parts' is what rounding left of zero."""


def cosine_contribution(
    gram: Float[Tensor, "clients clients"], weights: Float[Tensor, " clients"] | None = None
) -> Float[Tensor, " clients"]:
    """Each client's cosine with the aggregate, eq. (3): psi_i = cos(u_i, u_N).

    Args:
        gram: Inner products of the updates.
        weights: What the updates are multiplied with in the aggregate, at or above 0; equal where left out. Their scale
            has no effect.

    Returns:
        float64 in [-1, 1]; 0 for an update of zeros.

    Raises:
        InvalidValue: A shape or a weight is wrong, or the weighted updates cancel.
        NonFiniteValue: An inner product is NaN or infinite.

    Examples:
        >>> updates = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> cosine_contribution(updates @ updates.T)
        tensor([0.8944, 0.8944, 0.4472], dtype=torch.float64)
    """
    game = _Game.of(gram, weights)
    lengths = game.gram.diagonal().sqrt()
    cosines = (game.gram @ game.weights) / (lengths * game.length)
    return torch.where(lengths > 0, cosines, 0.0).clamp_(-1.0, 1.0)


def cosine_gradient_shapley(
    gram: Float[Tensor, "clients clients"], weights: Float[Tensor, " clients"] | None = None
) -> Float[Tensor, " clients"]:
    """The cosine gradient Shapley value, eq. (2), of all 2^N coalitions, with phi summing to 1.

    A coalition is a subset of the first clients and one of the others, so that the squared lengths of all coalitions are
    one product of two small matrices: its blocks are valued and added up while they are in the cache. Time grows with
    2^N, memory with 2^(N/2).

    Args:
        gram: Inner products of the updates, of 1 to 24 clients.
        weights: What the updates are multiplied with in an aggregate, at or above 0; equal where left out. Their scale
            has no effect.

    Returns:
        float64. An empty coalition is worth 0, as is one whose updates cancel; eq. (2) as printed divides by (N-1)!, and
        its values sum to N.

    Raises:
        InvalidValue: There are more than 24 clients, a shape or a weight is wrong, or the weighted updates cancel.
        NonFiniteValue: An inner product is NaN or infinite.

    Examples:
        >>> updates = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> values = cosine_gradient_shapley(updates @ updates.T)
        >>> values, round(float(values.sum()), 6)
        (tensor([0.3988, 0.3988, 0.2023], dtype=torch.float64), 1.0)
    """
    if len(gram) > MOST_CLIENTS:
        raise InvalidValue(
            "Clients of an exact cosine gradient Shapley value",
            expected=f"1 to {MOST_CLIENTS}",
            received=len(gram),
            action="sample permutations, or use the cosine approximation",
        )
    game = _Game.of(gram, weights)
    clients = len(gram)
    split = (clients + 1) // 2
    inner = _Side.of(game, range(split))
    outer = _Side.of(game, range(split, clients))
    # |sum of S|^2 = |outer part|^2 + 2 <outer part, inner part> + |inner part|^2 = left @ right
    crossing = 2 * outer.members @ game.products[split:, :split]
    left = torch.cat((crossing, outer.squares[:, None], torch.ones_like(outer.squares[:, None])), dim=1)
    right = torch.cat((inner.members.T, torch.ones_like(inner.squares[None]), inner.squares[None]))
    joining, staying = _shapley_weights(clients)

    by_inner = torch.zeros_like(inner.squares)
    by_outer = torch.zeros_like(outer.squares)
    everywhere = 0.0
    for size, rows in outer.blocks(max(1, _COALITIONS // len(inner.squares))):
        squares = left[rows] @ right
        if bool(squares.min() <= _CANCELLED * game.parts):
            parts = outer.parts[rows, None] + inner.parts
            squares.masked_fill_(squares <= _CANCELLED * parts, torch.inf)
        values = squares.rsqrt_().mul_(outer.aligned[rows, None] + inner.aligned)
        sizes = inner.sizes + size
        by_size = values.sum(dim=0)
        by_inner += by_size * (joining + staying)[sizes]
        by_outer[rows] = values @ (joining + staying)[sizes]
        everywhere += float(by_size @ staying[sizes])
    shapley = torch.cat((inner.members.T @ by_inner, outer.members.T @ by_outer)) - everywhere
    return shapley / game.length


def sampled_cosine_gradient_shapley(
    gram: Float[Tensor, "clients clients"],
    weights: Float[Tensor, " clients"] | None,
    permutations: int,
    generator: torch.Generator,
) -> Float[Tensor, " clients"]:
    """The cosine gradient Shapley value, eq. (2), as a mean over random orders in which the clients join.

    Args:
        gram: Inner products of the updates, of any number of clients.
        weights: What the updates are multiplied with in an aggregate, at or above 0; None is equal. Their scale has no
            effect.
        permutations: How many orders are drawn, at least 1.
        generator: On the CPU; what they are drawn from.

    Returns:
        float64. It sums to 1, as the exact value does.

    Raises:
        InvalidValue: There is no permutation, a shape or a weight is wrong, or the weighted updates cancel.
        NonFiniteValue: An inner product is NaN or infinite.

    Examples:
        >>> updates = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> draw = torch.Generator().manual_seed(0)
        >>> values = sampled_cosine_gradient_shapley(updates @ updates.T, None, 1000, draw)
        >>> exact = cosine_gradient_shapley(updates @ updates.T)
        >>> bool((values - exact).abs().max() < 0.05)
        True
    """
    if permutations < 1:
        raise InvalidValue("Permutations to sample", expected="1 or more", received=permutations)
    game = _Game.of(gram, weights)
    clients = len(gram)
    diagonal, aligned = game.products.diagonal(), game.products.sum(dim=1)
    total = torch.zeros(clients, dtype=torch.float64)
    at_once = max(1, _SAMPLED // clients**2)
    for begin in range(0, permutations, at_once):
        count = min(at_once, permutations - begin)
        orders = torch.stack([torch.randperm(clients, generator=generator) for _ in range(count)])
        ordered = game.products[orders[:, :, None], orders[:, None, :]]
        # The j-th to join adds its own square, and twice its products with those before it.
        squares = (2 * ordered.tril().sum(dim=2) - diagonal[orders]).cumsum(dim=1)
        cancelled = squares <= _CANCELLED * diagonal[orders].cumsum(dim=1)
        values = aligned[orders].cumsum(dim=1) * squares.masked_fill(cancelled, torch.inf).rsqrt()
        marginal = values.diff(dim=1, prepend=torch.zeros(count, 1, dtype=torch.float64))
        total.index_add_(0, orders.flatten(), marginal.flatten())
    return total / (permutations * game.length)


@dataclass(frozen=True)
class _Game:
    """The inner products of the weighted updates.

    Attributes:
        gram: Of the updates as they came.
        weights: Brought to a greatest of 1.
        products: M_ij = w_i w_j <u_i, u_j>.
        parts: Sum of the squared lengths of the weighted updates.
        length: Length of the aggregate |u_N|.
    """

    gram: Float[Tensor, "clients clients"]
    weights: Float[Tensor, " clients"]
    products: Float[Tensor, "clients clients"]
    parts: float
    length: float

    @classmethod
    def of(cls, gram: Float[Tensor, "clients clients"], weights: Float[Tensor, " clients"] | None) -> _Game:
        if gram.ndim != 2 or not len(gram) or gram.shape[0] != gram.shape[1]:
            raise InvalidValue("A Gram matrix", expected="[clients, clients]", received=list(gram.shape))
        gram = gram.to(torch.float64)
        if not bool(torch.isfinite(gram).all()):
            raise NonFiniteValue("A Gram matrix", expected="finite values", received="NaN or infinity")
        if weights is None:
            weights = torch.ones(len(gram), dtype=torch.float64)
        if weights.shape != gram.shape[:1]:
            raise InvalidValue("Weights", expected=f"[{len(gram)}], one a client", received=list(weights.shape))
        weights = weights.to(torch.float64)
        if not bool(((weights >= 0) & (weights < torch.inf)).all()) or not bool(weights.any()):
            raise InvalidValue("Weights", expected="finite, none below 0, one above", received=weights.tolist())
        weights = weights / weights.max()
        products = gram * weights[:, None] * weights
        parts, square = float(products.trace()), float(products.sum())
        if square <= _CANCELLED * parts:
            raise cancelled()
        return cls(gram, weights, products, parts, square**0.5)


@dataclass(frozen=True)
class _Side:
    """All subsets of some of the clients, by size.

    Attributes:
        members: 1.0 where a client is in a subset.
        sizes: Clients in each subset, ascending.
        squares: Squared length of each subset's sum.
        parts: Sum of the squared lengths of what each subset adds up.
        aligned: Inner product of each subset's sum with everybody's.
    """

    members: Float[Tensor, "subsets clients"]
    sizes: Tensor
    squares: Float[Tensor, " subsets"]
    parts: Float[Tensor, " subsets"]
    aligned: Float[Tensor, " subsets"]

    @classmethod
    def of(cls, game: _Game, clients: range) -> _Side:
        numbers = torch.arange(2 ** len(clients))
        members = (numbers[:, None] >> torch.arange(len(clients)) & 1).to(torch.float64)
        sizes, order = members.sum(dim=1).to(torch.int64).sort(stable=True)
        members = members[order]
        chosen = slice(clients.start, clients.stop)
        among = game.products[chosen, chosen]
        return cls(
            members,
            sizes,
            ((members @ among) * members).sum(dim=1),
            members @ among.diagonal(),
            members @ game.products.sum(dim=1)[chosen],
        )

    def blocks(self, most: int) -> Iterator[tuple[int, slice]]:
        """Runs of at most so many subsets that are all of one size, with that size."""
        begin = 0
        for size, count in enumerate(torch.bincount(self.sizes).tolist()):
            for first in range(begin, begin + count, most):
                yield size, slice(first, min(first + most, begin + count))
            begin += count


def _shapley_weights(clients: int) -> tuple[Float[Tensor, " sizes"], Float[Tensor, " sizes"]]:
    """What a coalition of each size weighs in the value of a client in it, and takes from that of one outside."""
    joining = [1 / (clients * comb(clients - 1, size - 1)) if size else 0.0 for size in range(clients + 1)]
    staying = [1 / (clients * comb(clients - 1, size)) if size < clients else 0.0 for size in range(clients + 1)]
    return torch.tensor(joining, dtype=torch.float64), torch.tensor(staying, dtype=torch.float64)
