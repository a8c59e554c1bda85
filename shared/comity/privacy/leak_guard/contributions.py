"""How much each sample of a batch contributes to each row of a layer."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MANY = 16
"""Samples of a batch, and inputs, up to which inputs are not looked at one by one."""
_PART = 32
"""Of a batch, the share that an input has to come from more of than one in so many, to count as many samples'."""
_INPUTS = 4
"""Share of the inputs, one in so many, that may come from fewer."""
_BEYOND = 1e3
_FLOOR = 0.1
"""Of the length that inputs have on average, what each has at least: a bias moves where its inputs do not."""
_LEAST = 1e-15
"""The same where inputs are alike: nothing beside those of other batches that are not."""

Inputs = Float[Tensor, "batch positions inputs"]
Gradient = Float[Tensor, "batch positions rows"]


def contributed(apart: Inputs, gradient: Gradient, groups: int = 1) -> Float[Tensor, "batch rows"]:
    """How much each sample contributes to each row, with the sign of most of it.

    That is the length of the sum over its positions. The sum of the lengths would not do: of two positions with opposite
    gradients it is nothing, while the row moves by how they differ, as in the keys of an attention, whose gradients add up
    to 0 in every sample.

    Where many of the inputs come from few samples of the batch, these inputs alone count, and more than other batches:
    however much the others contribute through other inputs, whoever reads leaves those aside.

    Args:
        apart: Inputs, less what they have in common.
        gradient: Of the outputs.
        groups: In how many parts the inputs go to as many parts of the outputs.
    """
    if groups > 1:
        inputs, outputs = (each.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1) for each in (apart, gradient))
        return _lengths(inputs, outputs).reshape(len(apart), -1)
    few = _of_few(apart)
    if few is None:
        return _lengths(apart, gradient)
    # Each counts as much as any. And all of a common size, so that batches in which nobody stands out do not drown it.
    some = apart[:, :, few]
    some = some / _greatest(some, (0, 1))
    return _lengths(some, gradient, floor=0.0) * (_BEYOND * _length(apart) / _length(some))


def _lengths(apart: Inputs, gradient: Gradient, floor: float = _FLOOR) -> Float[Tensor, "batch rows"]:
    """See `contributed`.

    Args:
        apart: See `contributed`.
        gradient: See `contributed`.
        floor: Of the length that inputs have on average, what each has at least.
    """
    # Squares of what float32 can hold pass its range.
    lengths = torch.linalg.vector_norm(apart, dim=-1, keepdim=True, dtype=torch.float64)
    least = max(floor * float(lengths.square().mean().sqrt()), _LEAST)
    if apart.shape[1] == 1:
        alone: Tensor = gradient[:, 0] * (lengths[:, 0].square() + least**2).sqrt().float()
        return alone
    along = (gradient * lengths.float()).sum(1)
    if apart.shape[1] > apart.shape[2]:
        # More positions than inputs: the sums themselves are smaller than the products of positions.
        sums = torch.einsum("bpr,bpi->bri", gradient, apart)
        size = torch.linalg.vector_norm(sums, dim=-1, dtype=torch.float64)
    else:
        far, steep = _greatest(apart, (1, 2)), _greatest(gradient, (1,))
        near, slight = apart / far, gradient / steep
        products = near @ near.transpose(1, 2)
        size = ((products @ slight) * slight).sum(1).clamp_min(0).sqrt().double() * far[:, 0] * steep[:, 0]
    size = torch.hypot(size, least * gradient.sum(1, dtype=torch.float64))
    return torch.copysign(size.float(), along)


def _of_few(apart: Inputs) -> Int[Tensor, " few"] | None:
    """The inputs that come from few samples, if they are so many that they show them; else None."""
    samples, positions, inputs = apart.shape
    if samples < _MANY or inputs <= _MANY:
        return None
    # In place, and scaled: fourth powers of what float32 can hold pass its range.
    powers = (apart / _greatest(apart, (0, 1))).square_()
    powers = powers[:, 0] if positions == 1 else powers.sum(1)
    together = powers.sum(0)
    # What the squares of some parts of a whole add up to says how many share it.
    few = (together.square() < max(samples / _PART, 2.0) * powers.square_().sum(0)).nonzero().flatten()
    if len(few) <= (most := max(inputs // _INPUTS, _MANY)):
        return None
    # Those that one sample has most of, with others of which the same is true: not what another has by chance.
    first = powers[:, few].argmax(0)
    few = few[first.bincount(minlength=samples)[first] > most // 2]
    return few if len(few) > most else None


def _length(apart: Inputs) -> float:
    """The length of all together."""
    return float(torch.linalg.vector_norm(apart, dtype=torch.float64))


def _greatest(of: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """The greatest absolute value; never 0."""
    return of.abs().amax(dimensions, keepdim=True).clamp_min(torch.finfo(of.dtype).tiny)
