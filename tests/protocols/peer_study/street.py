"""Small generated scenes: a street below a skyline, with a car or two, and the class of every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = 16
CLASSES = 3
"""Sky, road, car."""
IGNORED = 255


def scenes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, uint8 `[count, 3, SIZE, SIZE]`, and masks, uint8 `[count, SIZE, SIZE]`, with a frame that does not count."""
    draws = np.random.default_rng(seed)
    colours = np.array([[90, 140, 220], [80, 80, 80], [200, 40, 40]])
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for mask in masks:
        mask[draws.integers(5, 9) :] = 1
        for _ in range(draws.integers(1, 3)):
            top, left = draws.integers(7, 12), draws.integers(0, 11)
            mask[top : top + 3, left : left + 5] = 2
    pictures = colours[masks].transpose(0, 3, 1, 2) + draws.normal(0, 40, (count, 3, SIZE, SIZE))
    masks[:, -1] = IGNORED
    return np.clip(pictures, 0, 255).astype(np.uint8), masks


def save(path: Path, seed: int, count: int) -> None:
    """Writes scenes as `npz:` reads them."""
    pictures, masks = scenes(seed, count)
    np.savez(path, x=pictures, y=masks)
