"""Inverse Hessians applied to vectors, by products with the Hessian alone: what a bilevel problem asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter

Vector = Float[Tensor, " parameters"]
Product = Callable[[Vector], Vector]
"""Multiplies a vector with a Hessian."""


def hessian_product(loss: Tensor, parameters: Sequence[Parameter]) -> Product:
    """Products with the Hessian of a loss.

    Args:
        loss: A scalar, with its graph.
        parameters: With respect to which; vectors are in their order.
    """
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    flat = torch.cat([each.flatten() for each in first])

    def product(vector: Vector) -> Vector:
        found = torch.autograd.grad(
            flat, parameters, vector.to(flat), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([each.flatten() for each in found])

    return product


def neumann(product: Product, vector: Vector, *, terms: int, rate: float) -> Vector:
    """η·Σ (I − ηH)^j v for j below `terms`, which goes to H⁻¹v where η is below 2 over H's greatest eigenvalue.

    The factor η in front is part of it: without it the sum is H⁻¹v/η.

    Args:
        product: Multiplies with H.
        vector: v.
        terms: Terms of the series, 1 or more; 1 is ηv.
        rate: η.
    """
    term = total = vector
    for _ in range(terms - 1):
        term = term - rate * product(term)
        total = total + term
    return rate * total


def conjugate_gradient(product: Product, vector: Vector, *, steps: int, damping: float) -> Vector:
    """(H + δI)⁻¹v by conjugate gradients; where the curvature is not positive along a direction, as far as they came.

    Args:
        product: Multiplies with H.
        vector: v.
        steps: Most of them; as many as there are parameters make it exact.
        damping: δ.
    """
    found = torch.zeros_like(vector)
    rest = direction = vector
    square = rest @ rest
    least = torch.finfo(vector.dtype).eps ** 2 * square
    for _ in range(steps):
        if not bool(square > least):
            break
        along = product(direction) + damping * direction
        curvature = direction @ along
        if not bool(curvature > 0):
            # Of a direction of negative curvature there is no minimum; the first is better than nothing.
            return found if bool(found.any()) else vector
        step = square / curvature
        found, rest = found + step * direction, rest - step * along
        before, square = square, rest @ rest
        direction = rest + square / before * direction
    return found
