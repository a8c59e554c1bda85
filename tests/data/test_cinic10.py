"""CINIC-10 in the layout of its archive, beside CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comity.data import load
from comity.data.cinic10 import CLASSES
from comity.errors import InvalidValue, MissingFile


def unpack(folder: Path, *, side: int = 32) -> None:
    for split in ("train", "valid", "test"):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            image = Image.fromarray(np.full((side, side, 3), 10 * label, dtype=np.uint8))
            image.save(folder / split / name / "n01.png")


def test_its_classes_have_cifars_numbers(tmp_path: Path) -> None:
    unpack(tmp_path)
    (tmp_path / "valid" / "cat" / "broken.png").write_bytes(b"not read")
    # As some of the archive's images are.
    Image.fromarray(np.full((32, 32), 7, dtype=np.uint8)).save(tmp_path / "test" / "cat" / "n02.png")
    splits = load(f"cinic10:{tmp_path}", root=None, seed=0, image_size=None)
    assert splits.test is not None
    assert splits.train.kind == "torch.uint8 samples of shape [3, 32, 32], scale 0.00392156862745098, 10 classes"
    assert torch.equal(splits.train.labels, torch.arange(10))
    assert splits.train.inputs[:, 0, 0, 0].tolist() == [10 * label for label in range(10)]
    assert len(splits.test) == 11


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"train/<class>/\*\.png.*unpack"):
        load(f"cinic10:{tmp_path}", root=None, seed=0, image_size=None)
    unpack(tmp_path / "a", side=16)
    with pytest.raises(InvalidValue, match="32x32 pixels, received 16x16"):
        load(f"cinic10:{tmp_path / 'a'}", root=None, seed=0, image_size=None)
    (tmp_path / "a" / "test" / "lorry").mkdir()
    with pytest.raises(InvalidValue, match="expected airplane, automobile"):
        load(f"cinic10:{tmp_path / 'a'}", root=None, seed=0, image_size=None)
