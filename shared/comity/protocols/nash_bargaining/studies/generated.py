"""Scenes that are generated, in the layouts that NYUv2 and Cityscapes are published in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

_FAR, _NEAR = 4.0, 1.0
_UNMEASURED = 0.05
"""Share of pixels that a camera found no depth of."""


def rooms(folder: Path, counts: Mapping[str, int], height: int, width: int, classes: int = 13) -> None:
    """Rooms: a wall, a floor, and boxes of many colours that stand before them, each of a class that its colour tells.

    Args:
        folder: Where the set goes.
        counts: How many pictures, by split.
        height: Of a picture.
        width: Of a picture.
        classes: How many there are.
    """
    draws = np.random.default_rng(0)
    colours = draws.uniform(0.1, 0.9, (classes, 3))
    for split, count in counts.items():
        for kind in ("image", "label", "depth", "normal"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            label, depth, normal = _room(draws, height, width, classes)
            light = 1.2 - 0.1 * depth[..., None]
            image = (colours[label] * light + draws.normal(0, 0.05, (height, width, 3))).clip(0, 1)
            lost = draws.random((height, width)) < _UNMEASURED
            for kind, values in (
                ("image", image),
                ("label", np.where(lost, -1, label)),
                ("depth", np.where(lost, 0, depth)[..., None]),
                ("normal", np.where(lost[..., None], 0, normal)),
            ):
                np.save(folder / split / kind / f"{number}.npy", values.astype(np.float32))


def streets(folder: Path, counts: Mapping[str, int], height: int) -> None:
    """Streets, twice as wide as high: houses, a road, and cars and people on it, each of parts.

    Args:
        folder: Where the set goes.
        counts: How many pictures, by split, each of one city.
        height: Of a picture.
    """
    draws, width = np.random.default_rng(0), 2 * height
    colours = draws.integers(30, 220, (34, 3))
    for split, count in counts.items():
        city = f"{split}burg"
        for kind in ("leftImg8bit", "gtFine", "gtFinePanopticParts", "disparity"):
            (folder / kind / split / city).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            label, part, disparity = _street(draws, height, width)
            shade = 30 * (part % 6)[..., None]
            image = colours[label] + shade + draws.integers(-15, 16, (height, width, 3))
            lost = draws.random((height, width)) < _UNMEASURED
            name = f"{city}_{number:06}_000019"
            whole = np.where(part > 0, label * 100_000 + 100 + part, label)
            for kind, end, values in (
                ("leftImg8bit", "leftImg8bit.png", image.clip(0, 255).astype(np.uint8)),
                ("gtFine", "gtFine_labelIds.png", label.astype(np.uint8)),
                ("gtFinePanopticParts", "gtFinePanopticParts.tif", whole.astype(np.int32)),
                ("disparity", "disparity.png", np.where(lost, 0, disparity * 256 + 1).astype(np.uint16)),
            ):
                Image.fromarray(values).save(folder / kind / split / city / f"{name}_{end}")


def _room(draws: np.random.Generator, height: int, width: int, classes: int) -> tuple[Array, Array, Array]:
    """The classes, the depth and the normals of a room's pixels."""
    horizon = height // 2
    label = np.full((height, width), 11)
    depth, normal = np.full((height, width), _FAR), np.zeros((height, width, 3))
    normal[..., 2] = 1
    label[horizon:] = 4
    depth[horizon:] = np.linspace(_FAR, _NEAR, height - horizon)[:, None]
    normal[horizon:] = (0, 1, 0)
    for _ in range(3):
        tall, wide = draws.integers(height // 4, height // 2), draws.integers(width // 6, width // 3)
        top, left = draws.integers(0, height - tall), draws.integers(0, width - wide)
        place = np.s_[top : top + tall, left : left + wide]
        label[place] = draws.integers(classes)
        depth[place] = draws.uniform(_NEAR, _FAR)
        turned = draws.uniform(-1, 1)
        normal[place] = np.array([turned, 0, 1]) / np.hypot(turned, 1)
    return label, depth, normal


def _street(draws: np.random.Generator, height: int, width: int) -> tuple[Array, Array, Array]:
    """The set's numbers of classes, those of parts, and the disparity of a street's pixels."""
    horizon = height // 2
    label, part = np.full((height, width), 11), np.zeros((height, width), dtype=np.int64)
    disparity = np.full((height, width), 5.0)
    label[horizon:] = 7
    disparity[horizon:] = np.linspace(5, 60, height - horizon)[:, None]
    for kind in (24, 26, int(draws.choice((25, 27, 28)))):
        is_person = kind < 26
        tall = int(draws.integers(height // 3, height // 2))
        wide = tall // 2 if is_person else 2 * tall
        top, left = int(draws.integers(height // 4, height - tall)), int(draws.integers(0, max(width - wide, 1)))
        place = np.s_[top : top + tall, left : left + wide]
        label[place] = kind
        rows = np.arange(tall) * (4 if is_person else 5) // tall + 1
        part[place] = rows[:, None]
        disparity[place] = 5 + 55 * (top + tall) / height
    return label, part, disparity
