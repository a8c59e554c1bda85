"""What weights to begin with look like that somebody made to read samples off."""

from __future__ import annotations

import torch

from comity.tensors import State

_PARALLEL = 0.95
"""Absolute cosine of two rows above which they are told of: rows of an imprint are copies, with noise .97 and more."""
_FEW = 16
"""Inputs up to which rows that are alike show nothing."""
_CHUNK = 1024


def parallel_rows(state: State) -> str:
    """The first weight of which two rows are nearly parallel; empty for none.

    That is advice: rows of random traps are not parallel, and show samples all the same.

    Args:
        state: The weights that a training begins with.
    """
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim == 2 and tensor.is_floating_point():
            rows, inputs = tensor.shape
            if rows > 1 and inputs > _FEW and _has_parallel(tensor.detach().float()):
                return name
    return ""


def _has_parallel(rows: torch.Tensor) -> bool:
    unit = torch.nn.functional.normalize(rows, dim=1, eps=torch.finfo(torch.float32).tiny)
    for at in range(0, len(unit), _CHUNK):
        cosines = (unit[at : at + _CHUNK] @ unit.T).abs()
        places = torch.arange(len(cosines))
        cosines[places, at + places] = 0
        if float(cosines.max()) > _PARALLEL:
            return True
    return False
