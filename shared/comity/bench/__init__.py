"""What is claimed about speed, runnable: each benchmark compares with a baseline that it measures in the same run.

The figures belong to the machine that they name; what carries over to another is the ratios.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from comity.bench.report import Report, Row, Target
from comity.errors import InvalidValue

__all__ = ["BENCHMARKS", "Report", "Row", "Target", "run"]

BENCHMARKS: Mapping[str, str] = MappingProxyType(
    {
        "transfer": "a checkpoint from one process to another, against raw sockets and whole gRPC messages",
        "compression": "checkpoints as what changed since the one before, against dense ones and Zstandard alone",
        "screening": "finding a trajectory's best checkpoint, against evaluating every checkpoint on every sample",
        "streaming": "a round whose parties work at the same time, against one in sequential phases",
        "overhead": "what the network costs a session besides training, against the same roles in one process",
        "durability": "what keeping everything on disk costs a session, against the same session in memory",
        "rewards": "what a server does for gradient rewards, against the Gram matrix alone, enumeration and plain top-k",
        "rollouts": "episodes a second of a policy in thousands of games at once, against one game",
        "startup": "comity --help, against import torch",
        "ledger": "checking a ledger, against hashing it alone; writing it durably, against memory",
    }
)
"""What each benchmark measures, by name."""


def run(name: str, *, quick: bool = False) -> Report:
    """Runs a benchmark.

    Args:
        name: One of `BENCHMARKS`.
        quick: Tiny sizes and few repetitions: shows that it works, and says nothing about speed.

    Raises:
        InvalidValue: There is no benchmark of that name.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        action = f"did you mean {near[0]}?" if near else ""
        raise InvalidValue("no such benchmark", expected=", ".join(BENCHMARKS), received=name, action=action)
    report: Report = import_module(f"comity.bench.{name}").run(quick=quick)
    return report
