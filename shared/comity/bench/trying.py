"""What trying a model before a session costs, and what adapters spare on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import torch

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.contract import LoraSpec, ModelSpec, TaskSpec
from comity.data import Dataset, Splits
from comity.models import build
from comity.models.crossing import Crossing
from comity.tasks import build_model
from comity.tasks.classification import classification
from comity.tensors import Layout
from comity.training import OptimizerSpec, Secret, Supervised

_MOST_OF_ITS_PARTS = 3.0
"""Over one step and an evaluation of one batch."""
_MOST_BYTES = 0.05
"""Of adapters, over all of a ResNet-18."""
_BATCH = 64
_SPEC = OptimizerSpec("adam", 1e-3)


def run(*, quick: bool = False) -> Report:
    """Tries networks on random pictures, and beside that makes one step and one evaluation of the same batch.

    Args:
        quick: Once, and the small network alone.
    """
    rows: list[Row] = []
    targets: list[Target] = []
    shapes: Mapping[str, tuple[int, ...]] = {"lenet5": (1, 28, 28), "cnn-cifar": (3, 32, 32)}
    with one_thread():
        for name, shape in [*shapes.items()][: 1 if quick else None]:
            task = _task(name, shape)
            cases: dict[str, Callable[[], float]] = {
                "a step and an evaluation": partial(_seconds, partial(_parts, task)),
                "a try-out": partial(_seconds, partial(task.try_out, _SPEC)),
            }
            parts, tried = (
                Row(f"{name}, {way}", 1e3 * value, "ms")
                for way, value in interleaved(cases, repeats=1 if quick else 9).items()
            )
            rows += [parts, tried.over(parts)]
            what = f"{name}: a try-out, over one step and an evaluation of one batch"
            targets.append(Target.at_most(what, _MOST_OF_ITS_PARTS, tried.median / parts.median))
    pictures = classification((3, 32, 32), 10)
    lora = ModelSpec(name="torchvision:resnet18", lora=LoraSpec(rank=8), trainable=("fc.*",))
    every, adapters = (
        Row(f"ResNet-18, a checkpoint of {what}", _bytes(spec, pictures) / 1e6, "MB")
        for what, spec in (("all of it", ModelSpec(name="torchvision:resnet18")), ("adapters and head", lora))
    )
    rows += [every, adapters.over(every)]
    targets.append(Target.at_most("ResNet-18: bytes of LoRA over all", _MOST_BYTES, adapters.median / every.median))
    return Report("trying", describe(), rows, targets)


def _task(model: str, shape: tuple[int, ...]) -> Supervised:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (4 * _BATCH, *shape), generator=draws, dtype=torch.uint8)
    labels = torch.randint(10, (4 * _BATCH,), generator=draws)
    return Supervised(
        build(model, input_shape=shape, outputs=10, options={}, seed=0),
        Splits(Dataset(inputs, labels, 1 / 255, 10), None),
        normalization=((), ()),
        batch_size=_BATCH,
        evaluation_batch_size=_BATCH,
        secret=Secret(b"trying", "bench"),
        device=torch.device("cpu"),
    )


def _parts(task: Supervised) -> None:
    """One step, and an evaluation of one batch."""
    *_, made = task.trajectory(task.initial_state, _SPEC, iterations=2, period=1, round=1)
    task.losses(made.state, torch.arange(_BATCH))


def _bytes(spec: ModelSpec, task: TaskSpec) -> int:
    model = build_model(spec, task, seed=0)
    return Layout.of(Crossing.of(model).state(model)).size


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
