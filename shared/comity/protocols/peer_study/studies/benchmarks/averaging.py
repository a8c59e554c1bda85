"""Averaging clients' weights at the server, against numpy's weighted mean of the same arrays."""

from __future__ import annotations

import time

import numpy as np
from torch import Tensor

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.models import build
from comity.protocols.peer_study.algorithm import average

_CLIENTS = 10
_MOST_OVER_NUMPY = 2.0


def run(*, quick: bool = False) -> Report:
    """Ten clients' models, by their numbers of labels.

    Args:
        quick: Of ResNet-8 alone, a few times.
    """
    rows: list[Row] = []
    targets: list[Target] = []
    with one_thread():
        for name in ("resnet8",) if quick else ("resnet8", "resnet18-cifar"):
            states = [
                build(name, input_shape=(3, 32, 32), outputs=10, options={}, seed=seed).state_dict()
                for seed in range(_CLIENTS)
            ]
            labels = [10 + seed for seed in range(_CLIENTS)]
            arrays = [[tensor.numpy() for tensor in state.values()] for state in states]

            def ours(states: list[dict[str, Tensor]] = states, labels: list[int] = labels) -> float:
                began = time.perf_counter()
                average(states, labels)
                return time.perf_counter() - began

            def theirs(arrays: list[list[np.ndarray]] = arrays, labels: list[int] = labels) -> float:
                began = time.perf_counter()
                for each in zip(*arrays, strict=True):
                    np.average(np.stack(each), axis=0, weights=labels)
                return time.perf_counter() - began

            found = interleaved({"ours": ours, "numpy": theirs}, repeats=3 if quick else 9)
            base = Row(f"numpy.average of {_CLIENTS} {name}", 1e3 * found["numpy"], "ms")
            rows += [base, Row(f"averaging {_CLIENTS} {name}", 1e3 * found["ours"], "ms").over(base)]
            targets.append(
                Target.at_most(f"averaging {name} over numpy", _MOST_OVER_NUMPY, found["ours"] / found["numpy"])
            )
    return Report("averaging", describe(), rows, targets)
