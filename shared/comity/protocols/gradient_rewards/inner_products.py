"""Inner products of clients' updates, of which contributions are made.

Most of the time that a contribution takes is spent here, reading the updates. Products of float32 are added in float32
over a stretch that stays in the cache, and in float64 from stretch to stretch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from comity.errors import InvalidValue, NonFiniteValue

_COLUMNS = 2**15
"""Parameters whose products are summed in float32 before their sum is added in float64."""


def gram(updates: Float[Tensor, "clients parameters"]) -> Float[Tensor, "clients clients"]:
    """Inner products of the clients' updates.

    Args:
        updates: One update a row, of any floating-point dtype.

    Returns:
        float64 on the CPU, symmetric. Values of float32 updates make contributions that are right to about 1e-7.

    Raises:
        InvalidValue: The updates are not a matrix of floating-point numbers with a row and a column at least.
        NonFiniteValue: A value is NaN or infinite.

    Examples:
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[5., 2.],
                [2., 1.]], dtype=torch.float64)
    """
    _require_matrix(updates)
    products = _products(updates, updates.dtype if updates.dtype == torch.float64 else torch.float32)
    if not _are_held(products.diagonal(), updates):
        products = _products(updates, torch.float64)
    return products


def cosines_with(
    updates: Float[Tensor, "clients parameters"], aggregate: Float[Tensor, " parameters"]
) -> Float[Tensor, " clients"]:
    """Each client's cosine with an aggregate, eq. (3), from the updates themselves: N inner products instead of N^2.

    Args:
        updates: One update a row, of any floating-point dtype.
        aggregate: Of the same dtype.

    Returns:
        float64 on the CPU, in [-1, 1]; 0 for an update of zeros.

    Raises:
        InvalidValue: The shapes do not fit each other, or the aggregate is zero.
        NonFiniteValue: A value is NaN or infinite.

    Examples:
        >>> updates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> cosines_with(updates, torch.tensor([3.0, 0.0]))
        tensor([ 1.,  0., -1.], dtype=torch.float64)
    """
    _require_matrix(updates)
    if aggregate.shape != updates.shape[1:]:
        received = list(aggregate.shape)
        raise InvalidValue("An aggregate", expected=f"[{updates.shape[1]}], one a parameter", received=received)
    everybody = aggregate.to(torch.float64)
    length = everybody.norm().cpu()
    if not bool(torch.isfinite(length)):
        _require_finite(updates)
        raise NonFiniteValue("The aggregate", expected="finite values", received="NaN or infinity")
    if not bool(length > 0):
        raise cancelled()
    # Brought to a length of 1, so that its products are no larger than the updates'.
    unit = everybody / length

    aligned, squares = _products_with(updates, unit, updates.dtype if updates.dtype == torch.float64 else torch.float32)
    if not _are_held(squares, updates):
        aligned, squares = _products_with(updates, unit, torch.float64)
    return torch.where(squares > 0, aligned / squares.sqrt(), 0.0).clamp_(-1.0, 1.0)


def cancelled() -> InvalidValue:
    """What is wrong where an aggregate has no direction."""
    return InvalidValue(
        "The aggregate of all updates",
        expected="a direction",
        received="updates that cancel",
        action="leave the clients out whose updates are zero or opposed",
    )


def _require_matrix(updates: Tensor) -> None:
    if updates.ndim != 2 or not updates.numel() or not updates.is_floating_point():
        raise InvalidValue(
            "The updates",
            expected="floating-point numbers [clients, parameters]",
            received=f"{updates.dtype} {list(updates.shape)}",
        )


def _are_held(squares: Float[Tensor, " clients"], updates: Float[Tensor, "clients parameters"]) -> bool:
    """Whether sums of squares were right in float32: not those of zeros, or of values whose squares it does not hold."""
    single = torch.finfo(torch.float32)
    if bool(((squares > single.tiny * _COLUMNS) & (squares < single.max)).all()):
        return True
    _require_finite(updates)
    return False


def _require_finite(updates: Float[Tensor, "clients parameters"]) -> None:
    for client, update in enumerate(updates):
        if not bool(torch.isfinite(update).all()):
            raise NonFiniteValue(f"The update of client {client}", expected="finite values", received="NaN or infinity")


def _products(updates: Float[Tensor, "clients parameters"], dtype: torch.dtype) -> Float[Tensor, "clients clients"]:
    products = torch.zeros(len(updates), len(updates), dtype=torch.float64, device=updates.device)
    for columns in updates.split(_COLUMNS, dim=1):
        part = columns.to(dtype)
        products += part @ part.T
    # Products of one block are not symmetric to the last bit.
    return ((products + products.T) / 2).cpu()


def _products_with(
    updates: Float[Tensor, "clients parameters"], vector: Float[Tensor, " parameters"], dtype: torch.dtype
) -> tuple[Float[Tensor, " clients"], Float[Tensor, " clients"]]:
    """Inner products of the updates with a vector, and with themselves."""
    sums = torch.zeros(2, len(updates), dtype=torch.float64, device=updates.device)
    for columns, along in zip(updates.split(_COLUMNS, dim=1), vector.split(_COLUMNS), strict=True):
        part = columns.to(dtype)
        sums[0] += part @ along.to(dtype)
        sums[1] += torch.linalg.vector_norm(part, dim=1).to(torch.float64).square()
    aligned, squares = sums.cpu()
    return aligned, squares
