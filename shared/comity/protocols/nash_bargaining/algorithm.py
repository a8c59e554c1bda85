"""The asymmetric Nash bargaining solution of Shamsian et al. 2023, and how it changes with the bargaining powers.

Players i with gradients g_i, the columns of G, agree on an update Gα that maximizes Π (g_iᵀGα)^p_i. Its weights fulfil

    GᵀGα = p/α,

so they are the minimum of ½αᵀKα − Σ p log α, where K = GᵀG is the Gram matrix. The update's squared length is Σp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from comity.errors import InvalidValue, NonFiniteValue
from comity.protocols.nash_bargaining.newton import Minimum, minimize
from comity.protocols.nash_bargaining.single import plain, solve_single

_ASYMMETRY = 1e-5
"""Relative to the lengths of both gradients: what float32 leaves of a Gram matrix's symmetry."""
_NEGATIVE = 1e-5
"""Likewise, for a matrix's smallest eigenvalue."""
_FAR = 1e9
"""Squared weights, of gradients of length 1, from which on rounding decides: opposites with a cosine below −1 + 1e-9."""
_SHORT = 100
"""A ridge so much shortens the update of gradients that balance: below this times the ridge it is looked at without one."""
_COLUMNS = 1 << 16
"""Parameters whose products are summed at a time, so that no whole copy in float64 is needed."""
_RIDGES = (1e-8, 1e-6, 1e-4, 1e-2)
"""What is added where there is no solution, relative to the diagonal, until there is one."""


@dataclass(frozen=True, slots=True)
class Bargain:
    """What the players agree on.

    Attributes:
        alpha: α, the weights of the gradients; 0 for a player without power or with a zero gradient.
        iterations: How many Newton steps it took.
        residual: Largest relative error of α·Kα = p among those who bargain, with the ridge that was used.
        degenerate: Whether the gradients have no solution of their own: one of a player with power is zero, or they are
            opposites, so that a point is Pareto stationary and any weights that balance them give no update; the weights are
            then those of the least ridge that helps.
    """

    alpha: Float[Tensor, "*batch players"]
    iterations: Int[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]
    degenerate: Bool[Tensor, "*batch"]


def gram_matrix(gradients: Float[Tensor, "*batch players parameters"]) -> Float[Tensor, "*batch players players"]:
    """K, the inner products of gradients, summed in float64.

    Raises:
        NonFiniteValue: A gradient is NaN or infinite; the message names the player's place.
    """
    gram = sum(
        (part @ part.mT for part in (each.to(torch.float64) for each in gradients.split(_COLUMNS, dim=-1))),
        start=gradients.new_zeros((*gradients.shape[:-1], gradients.shape[-2]), dtype=torch.float64),
    )
    if not bool(gram.isfinite().all()):
        wrong = (~gradients.isfinite()).any(-1).nonzero().flatten().tolist()
        raise NonFiniteValue("a gradient is not finite", expected="finite numbers", received=f"player {wrong}")
    return gram


def bargain(gram: Any, power: Any, ridge: float = 0.0) -> Bargain:
    """Solves one bargaining game, or a batch of them.

    Args:
        gram: K, the inner products of the players' gradients, `[*batch, players, players]`.
        power: p, their bargaining powers, at least 0 and together above 0, `[*batch, players]` or `[players]`. A player with
            power 0 gets weight 0.
        ridge: ε of K + ε·diag(K), at least 0; it keeps weights bounded where gradients are nearly opposites.

    Returns:
        The weights, as float64, on the device of `gram`.

    Raises:
        InvalidValue: Shapes do not fit; powers are negative or sum to 0; the matrix is not symmetric or not positive
            semidefinite; the ridge is negative.
        NonFiniteValue: Something is NaN or infinite.
    """
    gram, power = _tensors(gram, power)
    if gram.is_cpu and (found := _plain(gram.numpy(), power.numpy(), ridge)) is not None:
        return found
    gram, power = _fitted(gram, power)
    shape, players, device = power.shape[:-1], power.shape[-1], gram.device
    xp: Any = np if device.type == "cpu" else torch
    matrix, weight = gram.reshape(-1, players, players), power.reshape(-1, players)
    if xp is np:
        matrix, weight = matrix.numpy(), weight.numpy()
    _check(xp, matrix, weight, ridge)
    diagonal = xp.diagonal(matrix, 0, 1, 2)
    bargains = (diagonal > 0) & (weight > 0)
    lengths = xp.sqrt(xp.where(diagonal > 0, diagonal, 1.0))
    # Of gradients of length 1; those who do not bargain get a game of their own that is solved already.
    own = xp.where(bargains, weight, 1.0)
    cosines = _cosines(xp, matrix, lengths, bargains)
    minimum, degenerate = _solve(xp, cosines, own, bargains, ridge)
    alpha = xp.where(bargains, minimum.at / lengths, 0.0)
    degenerate = degenerate | ((weight > 0) & ~(diagonal > 0)).any(-1)

    def back(array: Any, dtype: torch.dtype, *more: int) -> Tensor:
        return torch.as_tensor(array).to(dtype).reshape((*shape, *more))

    return Bargain(
        back(alpha, torch.float64, players),
        back(minimum.iterations, torch.int64),
        back(minimum.residual, torch.float64),
        back(degenerate, torch.bool),
    )


def _plain(gram: Any, power: Any, ridge: float) -> Bargain | None:
    """The answer for one game on the CPU without anything special about it; None for others."""
    if not ridge >= 0 or (symmetric := plain(gram, power, _ASYMMETRY, _NEGATIVE)) is None:
        return None
    found = solve_single(symmetric, power, ridge)
    if found is None:
        return None
    # Of an update that the ridge shortens much, what it would be without one decides.
    short = ridge and 1 - ridge * found.square < _SHORT * ridge
    bare = solve_single(symmetric, power) if short else found
    if bare is None or ((short or not ridge) and bare.square > _FAR):
        return None
    return Bargain(
        torch.from_numpy(found.alpha),
        torch.from_numpy(np.array(found.iterations)),
        torch.from_numpy(np.array(found.residual)),
        torch.from_numpy(np.array(False)),
    )


def _solve(xp: Any, cosines: Any, power: Any, bargains: Any, ridge: float) -> tuple[Minimum, Any]:
    """The solutions, and which of them needed a ridge of ours or come to no update."""
    every = power.shape[-1] + 1
    total = xp.where(bargains, power, 0.0).sum(-1)

    def solved(extra: float) -> tuple[Minimum, Any, Any]:
        """The solution, whether there is none, and how short the update is for what it should be."""
        raised = 1.0 * cosines
        raised.reshape(len(cosines), -1)[:, ::every] += extra
        minimum = minimize(xp, raised, power)
        y = xp.where(bargains, minimum.at, 0.0)
        square = xp.einsum("bi,bij,bj->b", y, cosines, y)
        far = xp.einsum("bi,bi->b", y, y) > _FAR * total
        return (
            minimum,
            ~minimum.converged | (far if extra == 0 else ~minimum.converged),
            square / (total + (total == 0)),
        )

    found, wrong, short = solved(ridge)
    degenerate = wrong
    if ridge > 0 and (suspect := short < _SHORT * ridge).any():
        degenerate = degenerate | suspect & solved(0.0)[1]
    for extra in _RIDGES:
        if not wrong.any():
            break
        again, still, _ = solved(max(ridge, extra))
        pick = wrong[:, None]
        found = Minimum(
            xp.where(pick, again.at, found.at),
            found.iterations + xp.where(wrong, again.iterations, 0 * again.iterations),
            xp.where(wrong, again.residual, found.residual),
            xp.where(wrong, again.converged, found.converged),
        )
        wrong = wrong & still
    return found, degenerate


def power_jacobian(gram: Any, power: Any, alpha: Any, ridge: float = 0.0) -> Float[Tensor, "*batch players players"]:
    """dα/dp = (K + diag(p/α²))⁻¹ diag(1/α), of a solution; rows and columns of players without weight are 0.

    Args:
        gram: K.
        power: p.
        alpha: α, as `bargain` found it for them.
        ridge: The ridge it was found with.
    """
    system, alpha = _system(gram, power, alpha, ridge)
    jacobian: Tensor = alpha.unsqueeze(-1) * torch.linalg.solve(system, torch.diag_embed((alpha > 0).to(alpha.dtype)))
    return jacobian


def power_gradient(
    gram: Any, power: Any, alpha: Any, vector: Any, ridge: float = 0.0
) -> Float[Tensor, "*batch players"]:
    """The gradient with respect to p of vᵀα(p), which is (dα/dp)ᵀv.

    Args:
        gram: K.
        power: p.
        alpha: α, as `bargain` found it for them.
        vector: v, the gradient of something with respect to α.
        ridge: The ridge it was found with.
    """
    system, alpha = _system(gram, power, alpha, ridge)
    vector = torch.as_tensor(vector).to(alpha)
    gradient: Tensor = torch.linalg.solve(system, (alpha * vector).unsqueeze(-1)).squeeze(-1)
    return gradient


def _system(gram: Any, power: Any, alpha: Any, ridge: float) -> tuple[Tensor, Tensor]:
    """αKα + diag(p), so that dα/dp = α·(αKα + diag(p))⁻¹, and α; for players without weight it is 1."""
    gram, power = _fitted(*_tensors(gram, power))
    alpha = torch.as_tensor(alpha).to(gram)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    system = alpha.unsqueeze(-1) * (gram * (1 + ridge * eye)) * alpha.unsqueeze(-2)
    return system + torch.diag_embed(torch.where(alpha > 0, power, 1.0)), alpha


def _tensors(gram: Any, power: Any) -> tuple[Tensor, Tensor]:
    gram = torch.as_tensor(gram, dtype=torch.float64)
    power = torch.as_tensor(power, dtype=torch.float64, device=gram.device)
    if gram.requires_grad or power.requires_grad:
        gram, power = gram.detach(), power.detach()
    return gram, power


def _fitted(gram: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """Both for the same batch."""
    if gram.dim() < 2 or gram.shape[-1] != gram.shape[-2] or power.dim() < 1 or power.shape[-1] != gram.shape[-1]:
        raise InvalidValue(
            "powers and Gram matrix do not fit",
            expected="[…, players] and […, players, players]",
            received=f"{[*power.shape]} and {[*gram.shape]}",
        )
    if power.shape[:-1] != gram.shape[:-2]:
        try:
            power = power.expand(*gram.shape[:-1])
        except RuntimeError:
            raise InvalidValue(
                "powers and Gram matrices are of different batches",
                expected=f"{[*gram.shape[:-1]]}",
                received=f"{[*power.shape]}",
            ) from None
    return gram, power


def _check(xp: Any, matrix: Any, power: Any, ridge: float) -> None:
    if not ridge >= 0:
        raise InvalidValue("ridge", expected="at least 0", received=ridge)
    for name, values in (("powers", power), ("Gram matrix", matrix)):
        if not xp.isfinite(values).all():
            raise NonFiniteValue(f"the {name} cannot be used", expected="finite numbers", received="NaN or infinity")
    if (power < 0).any() or not (power.sum(-1) > 0).all():
        raise InvalidValue("powers", expected="at least 0, and together above 0", received=f"{power.tolist()}"[:200])


def _cosines(xp: Any, matrix: Any, lengths: Any, bargains: Any) -> Any:
    """Cosines among those who bargain, and the identity elsewhere.

    Raises:
        InvalidValue: The matrix is not one of inner products.
    """
    diagonal = xp.diagonal(matrix, 0, 1, 2)
    if (diagonal < 0).any():
        raise _no_gram("nothing negative on its diagonal")
    inverse = 1 / lengths
    cosines = matrix * inverse[:, :, None]
    cosines *= inverse[:, None, :]
    mirrored = cosines.swapaxes(1, 2)
    if (abs(cosines - mirrored) > _ASYMMETRY).any():
        raise _no_gram("a symmetric matrix")
    cosines = cosines + mirrored
    cosines *= 0.5
    if not bargains.all():
        cosines = xp.where(bargains[:, :, None] & bargains[:, None, :], cosines, 0.0)
    every = cosines.shape[-1] + 1
    cosines.reshape(len(cosines), -1)[:, ::every] = 1.0
    lifted = 1.0 * cosines
    lifted.reshape(len(cosines), -1)[:, ::every] += _NEGATIVE
    if xp is np:
        try:
            np.linalg.cholesky(lifted)
        except np.linalg.LinAlgError:
            raise _no_gram("a positive semidefinite matrix") from None
    elif bool(torch.linalg.cholesky_ex(lifted).info.any()):
        raise _no_gram("a positive semidefinite matrix")
    return cosines


def _no_gram(expected: str) -> InvalidValue:
    return InvalidValue(
        "the matrix is no Gram matrix", expected=expected, received="another", action="pass GᵀG of finite gradients"
    )
