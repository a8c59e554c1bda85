"""Nash bargaining, tried and measured: its demo, what it is compared with, the paper's figures, its benchmarks."""

from comity.experiments.studies import Benchmark, Demo, Studies

_HERE = "comity.protocols.nash_bargaining.studies"

STUDIES = Studies(
    protocol="nash_bargaining",
    demos={
        "nash-bargaining": Demo(
            f"{_HERE}.demo:script",
            kill="commit:50",
            switches={
                "public": "data that anybody may read: nothing is held back, and every step crosses",
                "honest": "all providers are honest, as a control",
            },
        )
    },
    baselines=f"{_HERE}.alone:added",
    experiments=tuple(
        f"{_HERE}.{module}:EXPERIMENTS"
        for module in ("seeds", "protection", "illustration", "pareto", "scenes", "selfsupervised")
    ),
    benchmarks={
        "bargaining": Benchmark(
            "the bargaining solution, against cvxpy and TorchJD's NashMTL, and batches against a loop",
            f"{_HERE}.benchmarks.bargaining:run",
        ),
        "rounds": Benchmark(
            "a bargaining round between daemons, against a bare exchange of its bytes, and eight providers against one",
            f"{_HERE}.benchmarks.rounds:run",
        ),
        "weighting": Benchmark(
            "a training step of three tasks whose gradients are weighed, against their backward passes alone",
            f"{_HERE}.benchmarks.stepping:run",
        ),
    },
    faults={
        "learner": {"training": 12, "evaluation": 12, "selection": 12},
        "provider": {"training": 12},
    },
)
