"""Learning to help, tried and measured: its demo, the paper's figures and tables, its benchmarks."""

from comity.experiments.studies import Benchmark, Demo, Studies

_HERE = "comity.protocols.learning_to_help.studies"

STUDIES = Studies(
    protocol="learning_to_help",
    demos={"learning-to-help": Demo(f"{_HERE}.demo:script", kill="commit:20")},
    experiments=(f"{_HERE}.figures:EXPERIMENTS", f"{_HERE}.protection:EXPERIMENTS"),
    benchmarks={
        "serving": Benchmark(
            "answers for applications between two daemons, against servers that do not batch",
            f"{_HERE}.benchmarks.serving:run",
        ),
        "rejecting": Benchmark(
            "a local prediction with the rejector, against the client's model alone",
            f"{_HERE}.benchmarks.rejecting:run",
        ),
    },
    faults={"client": {"training": 1, "evaluation": 4}, "server": {"training": 1}},
)
