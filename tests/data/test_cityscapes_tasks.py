"""Cityscapes as several tasks, in the layout of its archives, with generated streets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comity.data import Splits, load
from comity.errors import InvalidValue, MissingFile

_PARTS = "gtFinePanopticParts"
# A road, a car without parts, its wheel, its chassis, a person's head, and a rider's part that is none of the set's.
_WHOLE = [7, 26_001, 2_600_102, 2_600_105, 2_400_302, 2_500_009]
_LABELS, _NUMBERS = [7, 26, 26, 26, 24, 25], [0, 0, 6, 9, 2, 0]
_DISPARITY = [0, 1, 257, 513, 2561, 25_601]


def unpack(folder: Path, *, again: int = 2) -> None:
    """A street of six pixels in a row, each as many times as is said, each row twice."""

    def street(values: list[int], dtype: type) -> np.ndarray:
        return np.tile(np.repeat(np.array(values, dtype=dtype), again), (3 * again, 1))

    for split in ("train", "val"):
        for kind, end, values in (
            ("leftImg8bit", "leftImg8bit.png", street([10, 20, 30, 40, 50, 60], np.uint8)),
            ("gtFine", "gtFine_labelIds.png", street(_LABELS, np.uint8)),
            (_PARTS, f"{_PARTS}.tif", street(_WHOLE, np.int32)),
            ("disparity", "disparity.png", street(_DISPARITY, np.uint16)),
        ):
            place = folder / kind / split / "aachen"
            place.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(values).save(place / f"aachen_{number:06}_000019_{end}")


def read(folder: Path, image_size: int | None = None) -> Splits:
    return load(f"cityscapes-tasks:{folder}", root=None, seed=0, image_size=image_size)


@pytest.mark.parametrize("image_size", [None, 3])
def test_a_street_has_classes_parts_and_disparity(tmp_path: Path, image_size: int | None) -> None:
    unpack(tmp_path, again=1 if image_size is None else 4)
    splits = read(tmp_path, image_size)
    assert splits.test is not None
    train = splits.train
    assert (len(train), train.input_shape, train.task) == (2, (3, 3, 6), "several")
    assert [(head.name, head.kind, head.size) for head in train.heads] == [
        ("mask", "segmentation", 19),
        ("part", "segmentation", 10),
        ("disparity", "regression", 1),
    ]
    assert train.targets["mask"][0, 0].tolist() == [0, 13, 13, 13, 11, 12]
    assert train.targets["part"][1, 2].tolist() == _NUMBERS
    found = train.targets["disparity"][0, 0, 1]
    assert bool(found[0].isnan())
    assert found[1:].tolist() == [0.0, 1.0, 2.0, 10.0, 100.0]
    known = torch.tensor([0.0, 1.0, 2.0, 10.0, 100.0]).repeat(6)
    assert train.heads[2].mean == pytest.approx([22.6])
    assert train.heads[2].std == pytest.approx([float(known.std())], abs=1e-3)
    assert splits.test.heads == train.heads


def test_another_layout_is_refused(tmp_path: Path) -> None:
    unpack(tmp_path)
    part = tmp_path / _PARTS / "val" / "aachen" / f"aachen_000001_000019_{_PARTS}.tif"
    kept = part.read_bytes()
    part.unlink()
    with pytest.raises(MissingFile, match=f"{_PARTS}_trainvaltest"):
        read(tmp_path)
    part.write_bytes(kept[:20])
    with pytest.raises(InvalidValue, match="cannot be read"):
        read(tmp_path)
    Image.fromarray(np.zeros((6, 12, 3), np.uint8)).save(part)
    with pytest.raises(InvalidValue, match="16 bits"):
        read(tmp_path)
