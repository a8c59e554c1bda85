"""Peer study, tried and measured: its demo, and what it is compared with."""

from comity.experiments.studies import Benchmark, Demo, Studies

_HERE = "comity.protocols.peer_study.studies"

STUDIES = Studies(
    protocol="peer_study",
    demos={"peer-study": Demo(f"{_HERE}.demo:script", kill="commit:30")},
    baselines=f"{_HERE}.chance:added",
    experiments=tuple(
        f"{_HERE}.{module}:EXPERIMENTS" for module in ("figures", "justification", "tables", "protection")
    ),
    benchmarks={
        "selection": Benchmark(
            "choosing samples, against the forward pass; a pool, against the bare model; BADGE, against scikit-activeml's",
            f"{_HERE}.benchmarks.selection:run",
        ),
        "averaging": Benchmark(
            "averaging ten clients' weights, against numpy's weighted mean", f"{_HERE}.benchmarks.averaging:run"
        ),
    },
    faults={
        "client": {"training": 12, "offering": 12, "evaluation": 12, "selection": 12},
        "server": {"offering": 12, "evaluation": 12, "selection": 12},
    },
)
