"""A damped Newton method for ½ xᵀMx − Σ p log x, for many problems at once, on NumPy's or PyTorch's arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

ITERATIONS = 60
"""Problems that have a solution need about ten."""
_STEP = 1e-8
"""A relative step below this is the last one: the next would be about its square."""
MOST_SHRUNK = 0.95
"""No entry loses more of itself in one step, so that all stay above 0."""
NEAR = 0.3
"""A step shorter than this is taken as it is: Newton's method converges from here, and so do corrections with the same factors."""
COOPERATION = 0.5
"""The start takes conflicts for no worse than this."""
_FEW = 4
"""Once fewer than one in so many are left, they go on by themselves."""
_SHORT = 32
"""Entries of a row up to which it is short."""
_HALVINGS = 30
_LOST = 1e7
"""Beyond this times √Σp entries go to infinity, there is no minimum: the square of this is where float64 ends."""
LEAST = 1e-30
"""Of Σp, what xᵀMx is taken to be at least."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the minimum is.

    Attributes:
        at: x, `[batch, players]`.
        iterations: How many steps were made, `[batch]`.
        residual: Largest relative error of x·Mx = p, `[batch]`.
        converged: Whether the last step was small, `[batch]`.
    """

    at: Any
    iterations: Any
    residual: Any
    converged: Any


def minimize(xp: Any, matrix: Any, power: Any, start: Any = None, iterations: int = ITERATIONS) -> Minimum:
    """Minimizes ½ xᵀMx − Σ p log x over x > 0.

    A Newton step is (M + diag(p/x²)) d = p/x − Mx; what counts is d/x, however different the entries of x are. After each
    step x is scaled so that xᵀMx = Σp, which is exact along the ray.

    Args:
        xp: `numpy` or `torch`, whose arrays the others are.
        matrix: M, `[batch, players, players]`, symmetric and positive semidefinite, with a diagonal of 1 or somewhat more.
        power: p, `[batch, players]`, all above 0.
        start: x to begin with; None for one of its own.
        iterations: Most of them.
    """
    batch, players = power.shape
    root, total = xp.sqrt(power), _sum(xp, power)
    if start is None:
        # Exact among orthogonal gradients, and among equal ones.
        start = power / xp.maximum(xp.einsum("bij,bj->bi", matrix, root), COOPERATION * root)
    x, product = _on_ray(xp, matrix, total, start)
    value = -_dot(xp, power, xp.log(x))
    made = xp.zeros_like(total)
    converged, lost = total < 0, _dot(xp, x, x) > _LOST**2 * total
    # Where there is no minimum the system becomes singular, and nothing is solved any more.
    lasting = xp.where(lost[:, None, None], 0.0, matrix)
    for iteration in range(1, iterations + 1):
        quotient = power / x
        system = 1.0 * lasting
        own = quotient / x
        system.reshape(batch, -1)[:, :: players + 1] += xp.where(lost[:, None], 1.0, own) if lost.any() else own
        step = xp.linalg.solve(system, (quotient - product)[:, :, None])[:, :, 0] / x
        size = _dot(xp, step, step)
        going = ~(converged | lost)
        if not (going & (size > NEAR**2)).any():
            tried, tried_product = _on_ray(xp, matrix, total, x * (1 + step))
        else:
            tried, tried_product, value = _searched(xp, matrix, power, x, step, value, going)
        if not going.all():
            tried = xp.where(going[:, None], tried, x)
            tried_product = xp.where(going[:, None], tried_product, product)
        x, product = tried, tried_product
        made = made + going
        converged = converged | ((size < _STEP**2) & going)
        gone = _dot(xp, x, x) > _LOST**2 * total
        if (gone != lost).any():
            lost = gone
            lasting = xp.where(lost[:, None, None], 0.0, matrix)
        left = ~(converged | lost)
        if not left.any():
            break
        if _FEW * left.sum() < batch:
            rest = minimize(xp, matrix[left], power[left], x[left], iterations - iteration)
            x[left], product[left] = rest.at, xp.einsum("bij,bj->bi", matrix[left], rest.at)
            made[left] += rest.iterations
            converged[left] = rest.converged
            break
    residual = _greatest(xp, abs(x * product / power - 1))
    return Minimum(x, made, residual, converged)


def _searched(  # noqa: PLR0913, PLR0917
    xp: Any, matrix: Any, power: Any, x: Any, step: Any, value: Any, going: Any
) -> tuple[Any, Any, Any]:
    """Where a step leads that is so short that nothing gets worse: x, its product, and what is minimized, less ½ Σp."""
    total = _sum(xp, power)
    shrinks = _greatest(xp, -step)
    length = xp.where(shrinks > MOST_SHRUNK, MOST_SHRUNK / xp.where(shrinks > 0, shrinks, 1.0), 1.0)
    small = _greatest(xp, abs(step)) < _STEP
    for _ in range(_HALVINGS):
        tried, product = _on_ray(xp, matrix, total, x * (1 + length[:, None] * step))
        found = -_dot(xp, power, xp.log(tried))
        worse = (found > value + 1e-12 * (1 + abs(value))) & ~small & going
        if not worse.any():
            break
        length = xp.where(worse, length / 2, length)
    return tried, product, xp.where(going, found, value)


def _on_ray(xp: Any, matrix: Any, total: Any, x: Any) -> tuple[Any, Any]:
    """The best multiple of x, and its product with the matrix."""
    product = xp.einsum("bij,bj->bi", matrix, x)
    square = _dot(xp, x, product)
    factor = xp.sqrt(total / xp.where(square > LEAST * total, square, LEAST * total))[:, None]
    return x * factor, product * factor


def _dot(xp: Any, a: Any, b: Any) -> Any:
    return xp.einsum("bi,bi->b", a, b)


def _sum(xp: Any, a: Any) -> Any:
    return xp.einsum("bi->b", a)


def _greatest(xp: Any, a: Any) -> Any:
    """The greatest of each row, by columns: NumPy takes ten times as long along many short rows."""
    return reduce(xp.maximum, a.T) if a.shape[-1] <= _SHORT else xp.amax(a, -1)
