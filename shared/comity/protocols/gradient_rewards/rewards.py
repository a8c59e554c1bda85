"""What a client gets for its contribution: the importance that it builds up, and the aggregate, as sparse as it earned.

Xu et al., "Gradient-Driven Rewards to Guarantee Fairness in Collaborative Machine Learning", NeurIPS 2021, section 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from comity.errors import InvalidValue, MalformedMessage, NonFiniteValue
from comity.protocols.gradient_rewards.choices import Rule

Mask = NDArray[np.bool_]

_BUCKET_BITS = 16
"""Leading bits of a magnitude that a first count goes by: a bucket holds about half a percent of a Gaussian's values."""


def normalize_update(
    update: Float[Tensor, "*clients parameters"], length: float
) -> Float[Tensor, "*clients parameters"]:
    """An update of a given length, eq. (1): Gamma u / |u|.

    Args:
        update: One update, or one a row.
        length: Gamma, above 0.

    Raises:
        InvalidValue: Gamma is out of range.
        NonFiniteValue: A value is NaN or infinite.
        MalformedMessage: An update is all zeros and so has no direction.

    Examples:
        >>> normalize_update(torch.tensor([3.0, 4.0]), length=0.5)
        tensor([0.3000, 0.4000])
    """
    if not 0 < length < math.inf:
        raise InvalidValue(
            "The length Gamma of a normalized update", expected="a finite number above 0", received=length
        )
    rows = update.flatten(end_dim=-2) if update.ndim > 1 else update[None]
    # Squares of what float32 holds do not all fit into it.
    norms = torch.stack([length_of(row) for row in rows]).view(*update.shape[:-1], 1)
    if not bool(torch.isfinite(norms).all()):
        raise NonFiniteValue("An update", expected="finite values", received="NaN or infinity")
    if not bool((norms > 0).all()):
        raise MalformedMessage(
            "An update", expected="a direction", received="zeros only", action="train before sending"
        )
    return update * (length / norms).to(update.dtype)


def length_of(update: Float[Tensor, " parameters"]) -> Float[Tensor, ""]:
    """An update's length, in float64: a sum of millions of squares has too few digits in float32."""
    length: Tensor = update.to(torch.float64).norm()
    return length


def update_importance(
    importance: Float[Tensor, " clients"],
    contribution: Float[Tensor, " clients"],
    alpha: float,
    floor: float = 1e-3,
    *,
    rule: Rule = "paper",
) -> Float[Tensor, " clients"]:
    """The moving average of contributions, eq. (4): r = alpha r + (1 - alpha) psi, then brought to a sum of 1.

    Args:
        importance: r of the round before; zeros before the first.
        contribution: psi or phi of this round.
        alpha: Weight of the past, 0 to 1.
        floor: The least importance, 0 to 1/N. Without one a client whose updates once pointed elsewhere would be paid
            nothing, and weigh nothing, for ever.
        rule: The paper has no floor: here it holds for the result. The authors' code clamps before it normalizes, so
            that the result may lie below it.

    Returns:
        float64 with a sum of 1.

    Raises:
        InvalidValue: A shape, alpha or the floor is out of range.
        NonFiniteValue: A value is NaN or infinite.

    Examples:
        >>> update_importance(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]), alpha=0.8)
        tensor([0.6000, 0.4000], dtype=torch.float64)
    """
    _require_rule(rule)
    clients = len(contribution) if contribution.ndim == 1 else 0
    if not clients or importance.shape != contribution.shape:
        raise InvalidValue(
            "Importance and contribution",
            expected="one value each for every client",
            received=f"{list(importance.shape)} and {list(contribution.shape)}",
        )
    if not 0 <= alpha <= 1:
        raise InvalidValue("The weight alpha of the past", expected="0 to 1", received=alpha)
    if not 0 <= floor <= 1 / clients:
        raise InvalidValue("The least importance", expected=f"0 to 1/{clients}", received=floor)
    average = alpha * importance.to(torch.float64) + (1 - alpha) * contribution.to(torch.float64)
    if not bool(torch.isfinite(average).all()):
        raise NonFiniteValue("Importance and contribution", expected="finite values", received="NaN or infinity")
    if rule == "reference":
        clamped = average.clamp(min=floor)
        return clamped / clamped.sum() if bool(clamped.any()) else torch.full_like(clamped, 1 / clients)
    return _on_simplex(average, floor)


def reward_fractions(importance: Float[Tensor, " clients"], beta: float) -> Float[Tensor, " clients"]:
    """The share of the aggregate's entries that each client gets, eq. (5): tanh(beta r_i) / max_j tanh(beta r_j).

    To pay no client less than a share q where no importance is below r, choose beta >= atanh(q) / r.

    Args:
        importance: At or above 0, with one above.
        beta: Degree of altruism, above 0; infinite pays everybody everything.

    Returns:
        float64 in [0, 1], 1 for the greatest importance.

    Raises:
        InvalidValue: An importance or beta is out of range.

    Examples:
        >>> reward_fractions(torch.tensor([0.5, 0.3, 0.2]), beta=1.0)
        tensor([1.0000, 0.6304, 0.4271], dtype=torch.float64)
        >>> reward_fractions(torch.tensor([0.5, 0.3, 0.2]), beta=10.0)
        tensor([1.0000, 0.9951, 0.9641], dtype=torch.float64)
    """
    if importance.ndim != 1 or not bool(((importance >= 0) & (importance < torch.inf)).all() & importance.any()):
        raise InvalidValue(
            "Importance",
            expected="one value for every client, finite, none below 0, one above",
            received=importance.tolist(),
        )
    if not beta > 0:
        raise InvalidValue("The degree of altruism beta", expected="above 0", received=beta)
    importance = importance.to(torch.float64)
    # Relative to the greatest, so that no beta is too small; infinity times 0 is nothing.
    paid = torch.where(importance > 0, torch.tanh(beta * importance), 0.0)
    if not bool(paid.max() > 0):
        paid = importance
    return paid / paid.max()


@dataclass(frozen=True, eq=False)
class SparseUpdate:
    """The entries of an update that are kept.

    Attributes:
        indices: Where they are, int64, ascending.
        values: What they are, of the update's dtype.
        size: Entries of the whole update.
    """

    indices: Int[Tensor, " kept"]
    values: Float[Tensor, " kept"]
    size: int

    def dense(self) -> Float[Tensor, " parameters"]:
        """The whole update, with zeros for what is not kept."""
        return torch.zeros(self.size, dtype=self.values.dtype).index_copy_(0, self.indices, self.values)


def sparsify(
    update: Float[Tensor, " parameters"],
    fraction: float,
    *,
    rule: Rule = "paper",
    sizes: Sequence[int] | None = None,
) -> SparseUpdate:
    """Keeps an update's largest entries by magnitude, the lowest index first on ties: mask(u, q) of eq. (5).

    Args:
        update: All parameters in a row.
        fraction: q, the share to keep, 0 to 1.
        rule: The paper keeps floor(D q) of all D entries, so that q = 1 returns the update bit for bit. The authors' code
            keeps ceil(n q) of each tensor's n, but never the last one; of a tensor of size 1, where it fails, that one.
        sizes: Entries of each tensor in the row; needed by the reference rule alone.

    Raises:
        InvalidValue: A shape, the fraction or the sizes are out of range.
        NonFiniteValue: A value is NaN or infinite.

    Examples:
        >>> kept = sparsify(torch.tensor([0.1, -0.9, 0.4, -0.2]), fraction=0.5)
        >>> kept.indices, kept.dense()
        (tensor([1, 2]), tensor([ 0.0000, -0.9000,  0.4000,  0.0000]))
    """
    return sparsify_for_all(update, [fraction], rule=rule, sizes=sizes)[0]


def sparsify_for_all(
    update: Float[Tensor, " parameters"],
    fractions: Sequence[float],
    *,
    rule: Rule = "paper",
    sizes: Sequence[int] | None = None,
) -> list[SparseUpdate]:
    """What `sparsify` keeps for each of several fractions, with one ordering for all: a smaller share is in a larger.

    Args:
        update: All parameters in a row.
        fractions: Shares to keep, each 0 to 1.
        rule: As for `sparsify`.
        sizes: As for `sparsify`.

    Raises:
        InvalidValue: A shape, a fraction or the sizes are out of range.
        NonFiniteValue: A value is NaN or infinite.

    Examples:
        >>> everybody = sparsify_for_all(torch.tensor([0.1, -0.9, 0.4, -0.2]), [1.0, 0.5, 0.25])
        >>> [each.indices.tolist() for each in everybody]
        [[0, 1, 2, 3], [1, 2], [1]]
    """
    _require_rule(rule)
    if update.ndim != 1 or not len(update) or not update.is_floating_point():
        received = f"{update.dtype} {list(update.shape)}"
        raise InvalidValue("An update to sparsify", expected="floating-point numbers [parameters]", received=received)
    for fraction in fractions:
        if not 0 <= fraction <= 1:
            raise InvalidValue("The share of an update to keep", expected="0 to 1", received=fraction)
    update = update.detach().cpu()
    # numpy knows no bfloat16; float32 holds every half-precision magnitude.
    wide = update if update.dtype in (torch.float32, torch.float64) else update.to(torch.float32)
    magnitudes = np.abs(wide.numpy())
    if not np.isfinite(magnitudes.max()):
        raise NonFiniteValue("An update to sparsify", expected="finite values", received="NaN or infinity")
    if rule == "paper":
        counts = [math.floor(len(update) * fraction) for fraction in fractions]
        chosen: Iterable[Mask] = _largest(magnitudes, counts)
    else:
        chosen, counts = _largest_of_each(magnitudes, fractions, sizes)
    # All rewards in two stretches of memory: fresh memory in many pieces costs more than what is done in it.
    indices = np.empty(sum(counts), np.int64)
    values = np.empty(sum(counts), wide.numpy().dtype)
    begin = 0
    for mask, count in zip(chosen, counts, strict=True):
        part = slice(begin, begin + count)
        indices[part] = np.flatnonzero(mask) if count < len(update) else np.arange(len(update))
        # The places are in range: clipping only spares numpy a buffer.
        np.take(wide.numpy(), indices[part], out=values[part], mode="clip")
        begin += count
    parts = zip(
        torch.from_numpy(indices).split(counts), torch.from_numpy(values).to(update.dtype).split(counts), strict=True
    )
    return [SparseUpdate(where, what, len(update)) for where, what in parts]


def _largest_of_each(
    magnitudes: NDArray[Any], fractions: Sequence[float], sizes: Sequence[int] | None
) -> tuple[list[Mask], list[int]]:
    """The largest magnitudes of each tensor, for each fraction, by the rule of the authors' code; and how many."""
    if sizes is None or any(size < 1 for size in sizes) or sum(sizes) != len(magnitudes):
        raise InvalidValue("Sizes of an update's tensors", expected=f"a sum of {len(magnitudes)}", received=sizes)
    tensors = np.split(magnitudes, np.cumsum(sizes)[:-1])
    counts = [[min(math.ceil(size * fraction), max(size - 1, 1)) for size in sizes] for fraction in fractions]
    masks = [list(_largest(tensor, each)) for tensor, each in zip(tensors, zip(*counts, strict=True), strict=True)]
    return [np.concatenate(parts) for parts in zip(*masks, strict=True)], [sum(each) for each in counts]


def _largest(magnitudes: NDArray[Any], counts: Sequence[int]) -> Iterator[Mask]:
    """Which magnitudes are the largest, for each count of them."""
    # The bits of floats at or above 0 are ordered as their values are.
    bits = magnitudes.view(f"u{magnitudes.itemsize}")
    thresholds = _thresholds(bits, {count for count in counts if 0 < count < len(bits)})
    for count in counts:
        if count not in thresholds:
            yield np.full(len(bits), fill_value=count > 0)
            continue
        mask = bits >= thresholds[count]
        if surplus := int(np.count_nonzero(mask)) - count:
            mask[np.flatnonzero(bits == thresholds[count])[-surplus:]] = False
        yield mask


def _thresholds(bits: NDArray[Any], counts: set[int]) -> dict[int, Any]:
    """The k-th largest, for each k: found by counting buckets, and sorting only the buckets that hold one."""
    if not counts:
        return {}
    shift = 8 * bits.itemsize - _BUCKET_BITS
    bucket = (bits >> shift).astype(np.uint16)
    at_least = np.append(np.bincount(bucket)[::-1].cumsum()[::-1], 0)
    holding = {count: int(np.searchsorted(-at_least, -count, side="right")) - 1 for count in counts}
    searched = np.zeros(len(at_least), np.bool_)
    searched[list(holding.values())] = True
    inside = np.sort(bits[np.flatnonzero(searched.take(bucket))])
    # Of the buckets that are searched, those up to k's own end before this place.
    ends = {count: int(np.searchsorted(inside >> shift, place, side="right")) for count, place in holding.items()}
    return {count: inside[ends[count] - (count - at_least[place + 1])] for count, place in holding.items()}


def _require_rule(rule: str) -> None:
    if rule not in ("paper", "reference"):
        raise InvalidValue("A rule for rewards", expected="'paper' or 'reference'", received=repr(rule))


def _on_simplex(values: Float[Tensor, " clients"], floor: float) -> Float[Tensor, " clients"]:
    """Values in proportion, with a sum of 1, but none below the floor."""
    values = values.clamp(min=0.0)
    low = values <= 0
    while not bool(low.all()):
        scaled = values * ((1 - floor * int(low.sum())) / values[~low].sum())
        below = ~low & (scaled < floor)
        if not bool(below.any()):
            return torch.where(low, floor, scaled)
        low |= below
    return torch.full_like(values, 1 / len(values))
