"""Tiny ImageNet in the layout of its archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comity.data import load
from comity.data.dataset import Splits
from comity.errors import InvalidValue, MissingFile

NAMES = ("n01443537", "n01629819", "n02123045")


def picture(path: Path, value: int, *, is_grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (64, 64) if is_grey else (64, 64, 3)
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


def unpack(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        picture(folder / "train" / name / "images" / f"{name}_0.JPEG", 60 * number)
        (folder / "train" / name / f"{name}_boxes.txt").write_text("a box\n")
    # As some of the archive's pictures are.
    picture(folder / "train" / NAMES[2] / "images" / f"{NAMES[2]}_1.JPEG", 120, is_grey=True)
    for number, value in enumerate((60, 0)):
        picture(folder / "val" / "images" / f"val_{number}.JPEG", value)
    boxes = "\t0\t0\t62\t62"
    (folder / "val" / "val_annotations.txt").write_text(
        f"val_0.JPEG\t{NAMES[1]}{boxes}\nval_1.JPEG\t{NAMES[0]}{boxes}\n"
    )
    (folder / "test" / "images").mkdir(parents=True)


def read(folder: Path) -> Splits:
    return load(f"tiny-imagenet:{folder}", root=None, seed=0, image_size=None)


def test_its_validation_split_is_tested_on(tmp_path: Path) -> None:
    unpack(tmp_path)
    splits = read(tmp_path)
    assert splits.test is not None
    assert splits.train.input_shape == (3, 64, 64)
    assert splits.train.meaning.labels == NAMES
    assert splits.train.labels.tolist() == [0, 1, 2, 2]
    assert splits.test.labels.tolist() == [1, 0]
    assert splits.test.inputs[:, 0, 5, 5].tolist() == pytest.approx([60, 0], abs=2)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="val_annotations.*unpack"):
        read(tmp_path)
    unpack(tmp_path)
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text(f"val_9.JPEG\t{NAMES[0]}\n")
    with pytest.raises(MissingFile, match="line 1"):
        read(tmp_path)
    annotations.write_text("val_0.JPEG\tn0\n")
    with pytest.raises(InvalidValue, match="line 1 names no class"):
        read(tmp_path)
    annotations.unlink()
    with pytest.raises(MissingFile):
        read(tmp_path)
