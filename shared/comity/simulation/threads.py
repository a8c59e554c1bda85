"""How many threads a simulation computes with, on which the last digits of its results depend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Has this process compute with so many threads for the body alone; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is not None:
        # Not by OMP_NUM_THREADS: torch read it when it was imported.
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
