"""Assisted learning, tried and measured: its demos, what it is compared with, the paper's figures, its benchmarks."""

from comity.experiments.studies import Benchmark, Demo, Studies

_HERE = "comity.protocols.assisted_learning.studies"

STUDIES = Studies(
    protocol="assisted_learning",
    demos={
        # Its provider has made 45 checkpoints in three rounds, and is in its fourth.
        "assisted-learning": Demo(f"{_HERE}.demo:script", guarded=f"{_HERE}.demo:guarded", kill="training:50"),
        # Policies of few episodes differ much from seed to seed.
        "assisted-rl": Demo(f"{_HERE}.demo_rl:script", sessions=3, kill="training:50"),
    },
    baselines=f"{_HERE}.baselines:added",
    experiments=tuple(
        f"{_HERE}.{module}:EXPERIMENTS"
        for module in (
            "regression",
            "logistic",
            "imbalance",
            "policies",
            "lunar_lander",
            "federated",
            "distillation",
            "private",
            "variations",
            "protection",
            "several",
        )
    ),
    benchmarks={
        "compression": Benchmark(
            "checkpoints as what changed since the one before, against dense ones and Zstandard alone",
            f"{_HERE}.benchmarks.compression:run",
        ),
        "screening": Benchmark(
            "finding a trajectory's best checkpoint, against evaluating every checkpoint on every sample",
            f"{_HERE}.benchmarks.screening:run",
        ),
        "streaming": Benchmark(
            "a round whose parties work at the same time, against one in sequential phases",
            f"{_HERE}.benchmarks.streaming:run",
        ),
        "overhead": Benchmark(
            "what the network costs a session besides training, against the same roles in one process",
            f"{_HERE}.benchmarks.overhead:run",
        ),
        "durability": Benchmark(
            "what keeping everything on disk costs a session, against the same session in memory",
            f"{_HERE}.benchmarks.durability:run",
        ),
        "load": Benchmark(
            "a provider with fifty sessions at once, and with a thousand clients that watch it, against without",
            f"{_HERE}.benchmarks.load:run",
        ),
    },
    faults={
        "learner": {"training": 12, "offering": 12, "evaluation": 12, "selection": 4},
        "provider": {"training": 12, "offering": 12, "evaluation": 12, "selection": 4},
    },
)
