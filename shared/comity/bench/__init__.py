"""What is claimed about speed, runnable: each benchmark compares with a baseline that it measures in the same run.

The figures belong to the machine that they name; what carries over to another is the ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from comity.bench.report import Report, Row, Target
from comity.experiments.studies import Benchmark, benchmarks, loaded, unknown

__all__ = ["Report", "Row", "Target", "known", "run"]

_SHARED: Mapping[str, Benchmark] = MappingProxyType(
    {
        "transfer": Benchmark(
            "a model's tensors from one process to another, against raw sockets and whole gRPC messages",
            "comity.bench.transfer:run",
        ),
        "rollouts": Benchmark(
            "episodes a second of a policy in thousands of games at once, against one game", "comity.bench.rollouts:run"
        ),
        "startup": Benchmark("comity --help, against import torch", "comity.bench.startup:run"),
        "guard": Benchmark(
            "a training whose models a leak guard judges, against the training alone", "comity.bench.guard:run"
        ),
        "data": Benchmark(
            "steps on data that are read when they are asked for, and on tensors, against the bare loop",
            "comity.bench.data:run",
        ),
        "trying": Benchmark(
            "trying a model before a session, against one step and one evaluation; adapters' bytes, against all of a model",
            "comity.bench.trying:run",
        ),
        "ledger": Benchmark(
            "checking a ledger, against hashing it alone; writing it durably, against memory", "comity.bench.ledger:run"
        ),
    }
)
"""What no protocol has to do with."""


def known() -> dict[str, Benchmark]:
    """Every benchmark by name: those of no protocol, whose names nobody takes, and those that the protocols bring."""
    return {**_SHARED, **benchmarks(), **_SHARED}


def run(name: str, *, quick: bool = False) -> Report:
    """Runs a benchmark.

    Args:
        name: One of `known`.
        quick: Tiny sizes and few repetitions: shows that it works, and says nothing about speed.

    Raises:
        InvalidValue: There is no benchmark of that name.
    """
    found = known()
    if name not in found:
        raise unknown("benchmark", name, found)
    report: Report = loaded(found[name].run)(quick=quick)
    return report
