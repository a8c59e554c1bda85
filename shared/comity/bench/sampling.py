"""Repeating measurements on a machine that is never quite alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import torch


def interleaved(
    cases: Mapping[str, Callable[[], float]],
    *,
    repeats: int,
    warmup: int = 1,
    of: Callable[[list[float]], float] = median,
) -> dict[str, float]:
    """Measures several things in turn, again and again, so that what else the machine does falls on all of them.

    Args:
        cases: Each does its work once and returns what it measured.
        repeats: Measurements of each, at least 1.
        warmup: Measurements of each before those that count.
        of: What stands for all measurements of one; `min` for work of which whatever else the machine does takes away.

    Returns:
        The median of each, or what `of` makes of them.
    """
    values: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(warmup + repeats):
        for name, measure in cases.items():
            value = measure()
            if repeat >= warmup:
                values[name].append(value)
    return {name: of(measured) for name, measured in values.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensor operations on one thread, as in the processes that are compared with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
