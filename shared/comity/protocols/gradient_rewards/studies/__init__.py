"""Gradient rewards, tried and measured: its demo, what it is compared with, the paper's figures, its benchmark."""

from comity.experiments.studies import Benchmark, Demo, Studies

_HERE = "comity.protocols.gradient_rewards.studies"

STUDIES = Studies(
    protocol="gradient_rewards",
    demos={"gradient-rewards": Demo(f"{_HERE}.demo:script", kill="commit:50")},
    baselines=f"{_HERE}.alone:added",
    experiments=tuple(
        f"{_HERE}.{module}:EXPERIMENTS" for module in ("approximation", "tables", "figures", "protection")
    ),
    benchmarks={
        "rewards": Benchmark(
            "what a server does for gradient rewards, against the Gram matrix alone, enumeration and plain top-k",
            f"{_HERE}.benchmarks.rewards:run",
        )
    },
    faults={
        "client": {"training": 12, "offering": 12, "evaluation": 12, "selection": 4},
        "server": {"offering": 12, "evaluation": 12, "selection": 4},
    },
)
