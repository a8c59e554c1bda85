"""A damped Newton method for ½ xᵀMx − Σ p log x, for one problem or many at once, on NumPy's or PyTorch's arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ITERATIONS = 60
"""Problems that have a solution need about ten."""
_STEP = 1e-8
"""A relative step below this is the last one: the next would be about its square."""
_MOST_SHRUNK = 0.95
"""No entry loses more of itself in one step, so that all stay above 0."""
_HALVINGS = 30
_LOST = 1e7
"""Entries beyond this go to infinity, there is no minimum: the square of this is where float64 ends."""
_LEAST = 1e-30
"""Of Σp, what xᵀMx is taken to be at least."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the minimum is.

    Attributes:
        at: x, `[*batch, players]`.
        iterations: How many steps were made, `[*batch]`.
        residual: Largest relative error of x·Mx = p, `[*batch]`.
        converged: Whether the last step was small, `[*batch]`.
    """

    at: Any
    iterations: Any
    residual: Any
    converged: Any


def minimize(xp: Any, matrix: Any, power: Any) -> Minimum:
    """Minimizes ½ xᵀMx − Σ p log x over x > 0.

    A step is relative to x, which makes the Newton system (XMX + P) u = p − x·Mx well scaled however different the
    entries of x are. After each step x is scaled so that xᵀMx = Σp, which is exact along the ray.

    Args:
        xp: `numpy` or `torch`, whose arrays the others are.
        matrix: M, `[batch, players, players]`, symmetric and positive semidefinite, with M_ii = p_i.
        power: p, `[batch, players]`, all above 0.
    """
    root, total = xp.sqrt(power), power.sum(-1)
    eye = xp.eye(power.shape[-1], dtype=power.dtype, **({} if power.device == "cpu" else {"device": power.device}))
    x, product, value = _on_ray(xp, matrix, power, total, power / power)
    iterations = xp.zeros_like(total)
    converged, lost = total < 0, xp.amax(x, -1) > _LOST
    for _ in range(ITERATIONS):
        # Symmetrically scaled by √p: tiny powers do not spoil it.
        scale = xp.where(lost[:, None], 1.0, x / root)
        system = matrix * scale[:, :, None] * scale[:, None, :] + eye
        gradient = (power - x * product) / root
        step = xp.linalg.solve(system, gradient[:, :, None])[:, :, 0] / root
        shrinks = xp.amax(-step, -1)
        length = xp.where(shrinks > _MOST_SHRUNK, _MOST_SHRUNK / xp.where(shrinks > 0, shrinks, 1.0), 1.0)
        small = xp.amax(abs(step), -1) < _STEP
        for _ in range(_HALVINGS):
            tried = _on_ray(xp, matrix, power, total, x * (1 + length[:, None] * step))
            worse = (tried[2] > value + 1e-12 * (1 + abs(value))) & ~small
            if not worse.any():
                break
            length = xp.where(worse, length / 2, length)
        going = ~(converged | lost)
        keep = going[:, None]
        x, product = xp.where(keep, tried[0], x), xp.where(keep, tried[1], product)
        value = xp.where(going, tried[2], value)
        iterations = iterations + going
        converged = converged | (small & going)
        lost = xp.amax(x, -1) > _LOST
        if (converged | lost).all():
            break
    residual = xp.amax(abs(x * product / power - 1), -1)
    return Minimum(x, iterations, residual, converged)


def _on_ray(xp: Any, matrix: Any, power: Any, total: Any, x: Any) -> tuple[Any, Any, Any]:
    """The best multiple of x, its product with the matrix, and what is minimized, less ½ Σp."""
    product = (matrix @ x[:, :, None])[:, :, 0]
    square = (x * product).sum(-1)
    factor = xp.sqrt(total / xp.where(square > _LEAST * total, square, _LEAST * total))
    x = x * factor[:, None]
    return x, product * factor[:, None], -(power * xp.log(x)).sum(-1)
