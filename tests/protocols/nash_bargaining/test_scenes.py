"""Trainings on scenes of three tasks, in the layouts of NYUv2 and Cityscapes, which are generated."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comity.experiments.datasets import Datasets
from comity.experiments.reproduction import ExperimentContext
from comity.protocols.nash_bargaining.studies.scenes import Scenes, measure
from comity.protocols.nash_bargaining.studies.segnet import WIDTHS, SegNet


def test_segnet_has_the_paper_s_size_and_heads_of_their_own() -> None:
    model = SegNet({"mask": 13, "depth": 1, "normal": 3})
    # VGG-16's thirteen convolutions.
    assert sum(each.numel() for each in model.down.parameters()) == pytest.approx(14.7e6, rel=0.01)
    assert WIDTHS == (64, 128, 256, 512, 512)
    small = SegNet({"mask": 13, "depth": 1}, widths=(4, 8))
    said = small(torch.rand(2, 3, 8, 12))
    assert {name: tuple(each.shape) for name, each in said.items()} == {"mask": (2, 13, 8, 12), "depth": (2, 1, 8, 12)}
    said["depth"].sum().backward()
    assert all(each.grad is None for each in small.heads["mask"].parameters())
    assert all(each.grad is not None for each in small.down.parameters())


@pytest.mark.parametrize(
    ("of", "tasks"), [("rooms", ("mask", "depth", "normal")), ("streets", ("mask", "part", "disparity"))]
)
def test_each_task_of_generated_scenes_is_learned(tmp_path: Path, of: Any, tasks: tuple[str, ...]) -> None:
    context = ExperimentContext(Datasets(tmp_path, None))
    settings = Scenes(of, (24, 8), 16, ("auxinash",), (0,), steps=40, learning_rate=5e-3, widths=(8, 16))
    (before,) = measure(replace(settings, steps=1), context).values()
    (after,) = measure(settings, context).values()
    for name, value in after.items():
        if name != "by seed":
            assert math.isfinite(value)
            is_better = value < before[name] if "mae" in name or "angle" in name else value > before[name]
            assert is_better, (name, before[name], value)
    assert {name.partition(".")[0] for name in after if name != "by seed"} == {*tasks}
