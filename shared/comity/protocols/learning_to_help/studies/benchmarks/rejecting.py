"""What the rejector adds to a prediction of the client's own model."""

from __future__ import annotations

import time

import torch

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.models import build
from comity.models.split import WithFeatures
from comity.protocols.learning_to_help.algorithm import rejector_scores
from comity.protocols.learning_to_help.features import Quantization

_REPEATS = 15
_MOST_OVER_LOCAL = 1.3


def run(*, quick: bool = False) -> Report:
    """A prediction at home with the rejector, over that of m alone.

    Args:
        quick: A few times.
    """
    local = build("lenet5", input_shape=(1, 28, 28), outputs=10, options={}, seed=0).eval()
    mapped, quantization = WithFeatures(local, "7"), Quantization(0.0, 1.0)
    rejector = build("mlp", input_shape=(400,), outputs=2, options={"hidden": 64}, seed=0).eval()
    rows: list[Row] = []
    ratios: dict[int, float] = {}
    with one_thread(), torch.inference_mode():
        for batch in (64, 1):
            inputs = torch.rand(batch, 1, 28, 28)
            passes = 3 if quick else 640 // batch

            def alone(inputs: torch.Tensor = inputs, passes: int = passes) -> float:
                began = time.perf_counter()
                for _ in range(passes):
                    local(inputs)
                return (time.perf_counter() - began) / passes

            def decided(inputs: torch.Tensor = inputs, passes: int = passes) -> float:
                began = time.perf_counter()
                for _ in range(passes):
                    _, features = mapped(inputs)
                    rejector_scores(rejector(quantization.decode(quantization.encode(features))))
                return (time.perf_counter() - began) / passes

            found = interleaved({"alone": alone, "decided": decided}, repeats=3 if quick else _REPEATS)
            base = Row(f"LeNet-5 alone, batch {batch}", 1e6 * found["alone"], "us")
            rows += [base, Row(f"with the rejector, batch {batch}", 1e6 * found["decided"], "us").over(base)]
            ratios[batch] = found["decided"] / found["alone"]
    target = Target.at_most("a local prediction with the rejector over m alone, batch 64", _MOST_OVER_LOCAL, ratios[64])
    return Report("rejecting", describe(), rows, [target])
