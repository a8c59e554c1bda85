"""One game on the CPU, by few calls of LAPACK: what is plainly solvable costs some tens of microseconds.

Whatever is not plain gets no answer here and is left to `newton.minimize`, which is slower and has the rules for it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv, dpotrf, dpotrs  # type: ignore[import-untyped, unused-ignore]

from comity.protocols.nash_bargaining.newton import COOPERATION, LEAST, MOST_SHRUNK, NEAR

_ITERATIONS = 12
"""Plain games need one to four."""
_CLOSE = 1e-3
"""Below this several of them cost less than a new system."""
_CORRECTIONS = 4
_ERROR = 1e-16
"""Relative, of the weights: what is left is below what float64 holds."""
_SMALL, _GREAT = 1e-200, 1e200
"""Squared lengths between which nothing overflows."""


class Single(NamedTuple):
    """The solution of one game.

    Attributes:
        alpha: α.
        iterations: How many systems were solved.
        residual: Largest relative error of α·Kα = p.
        square: Squared length of the weights, as those of gradients of length 1, over Σp.
    """

    alpha: Any
    iterations: int
    residual: float
    square: float


def plain(gram: Any, power: Any, asymmetry: float, negative: float) -> Any | None:
    """The matrix, made symmetric to the last bit; None unless it is one game, all have power and a gradient, and K is one.

    Args:
        gram: K, of any shape.
        power: p, of any shape.
        asymmetry: How uneven it may be, of gradients of length 1.
        negative: How far below 0 an eigenvalue may be, of gradients of length 1.
    """
    if power.ndim != 1 or gram.shape != 2 * power.shape:
        return None
    lengths, powers = gram.diagonal().tolist(), power.tolist()
    # Of NaN, a sum is NaN, and a comparison false.
    if not (sum(lengths) < _GREAT and min(lengths) > _SMALL and sum(powers) < _GREAT and min(powers) > 0):
        return None
    lifted = gram / (1 + negative)
    lifted.ravel("K")[:: len(lengths) + 1] = lengths
    if dpotrf(lifted.T, 1, 0, 1)[1]:
        return None
    difference = (gram - gram.T).ravel("K")
    uneven = difference.dot(difference)
    if uneven == 0:
        return gram
    # By the shortest gradient, which is enough for what rounding leaves; of NaN, a comparison is false.
    return 0.5 * (gram + gram.T) if uneven <= (asymmetry * min(lengths)) ** 2 else None


def solve_single(gram: Any, power: Any, ridge: float = 0.0) -> Single | None:
    """Minimizes ½ αᵀKα − Σ p log α over α > 0, for a game that is plain; None where it takes more than a few steps.

    Newton steps (K + diag(p/α²)) d = p/α − Kα, with what is left corrected by the same factors once, which makes the order
    of convergence 3, or more often where that is cheaper than a new system. Far from the solution α is brought to
    αᵀKα = Σp, which is exact along the ray. Cholesky factors are as good however different the gradients' lengths are.

    Args:
        gram: K, `[players, players]`.
        power: p.
        ridge: ε of K + ε·diag(K).
    """
    # Of one order whatever came, on which the last bits of products depend.
    gram = np.ascontiguousarray(gram)
    every, total, squares = len(power) + 1, sum(power.tolist()), gram.diagonal()
    # Through a view of it the diagonal is written: of another order that would be a copy.
    system = np.array(gram, order="C")
    diagonal, transposed = system.ravel()[::every], system.T
    if ridge:
        diagonal *= 1 + ridge
        gram = system.copy()
    own = gram.diagonal()
    # The start is exact among orthogonal gradients, and among equal ones.
    alpha = np.sqrt(power / squares)
    alpha = power / np.maximum(gram.dot(alpha), COOPERATION * alpha * squares)
    product = gram.dot(alpha)
    factor = math.sqrt(total / max(alpha.dot(product), LEAST * total))
    alpha *= factor
    product *= factor
    for iteration in range(1, _ITERATIONS + 1):
        quotient = power / alpha
        np.add(own, quotient / alpha, out=diagonal)
        factors, step, failed = dposv(transposed, quotient - product, 1, 0, 1)
        if failed:
            return None
        relative = step / alpha
        size = math.sqrt(relative.dot(relative))
        if size > NEAR:
            shrinks = -float(np.minimum.reduce(relative))
            alpha += step if shrinks <= MOST_SHRUNK else (MOST_SHRUNK / shrinks) * step
            product = gram.dot(alpha)
            square = alpha.dot(product)
            if not square > LEAST * total:
                return None
            factor = math.sqrt(total / square)
            alpha *= factor
            product *= factor
            continue
        alpha += step
        for _ in range(_CORRECTIONS):
            step, _failed = dpotrs(factors, power / alpha - gram.dot(alpha), 1, 1)
            relative = step / alpha
            alpha += step
            if size * math.sqrt(relative.dot(relative)) < _ERROR:
                residual = max(np.abs(alpha * gram.dot(alpha) / power - 1).tolist())
                return Single(alpha, iteration, residual, (alpha * alpha).dot(squares) / total)
            if size > _CLOSE:
                break
        product = gram.dot(alpha)
    return None
