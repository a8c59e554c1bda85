"""Cityscapes in the layout of its archives, with generated streets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comity.data import load
from comity.data.cityscapes import CLASSES
from comity.errors import InvalidValue, MissingFile


def unpack(folder: Path, *, height: int = 8, count: int = 3) -> None:
    """Streets of two cities, whose masks have every number of the set's."""
    draws = np.random.default_rng(0)
    for split in ("train", "val"):
        for city in ("aachen", "bonn"):
            for kind in ("leftImg8bit", "gtFine"):
                (folder / kind / split / city).mkdir(parents=True)
            for number in range(count):
                name = f"{city}_{number:06}_000019"
                picture = draws.integers(0, 256, (height, 2 * height, 3)).astype(np.uint8)
                Image.fromarray(picture).save(folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
                mask = (np.arange(2 * height * height) % 34).reshape(height, -1).astype(np.uint8)
                Image.fromarray(mask).save(folder / "gtFine" / split / city / f"{name}_gtFine_labelIds.png")


def read(folder: Path, *, image_size: int | None = None, in_memory: bool = True) -> object:
    return load(f"cityscapes:{folder}", root=None, seed=0, image_size=image_size, in_memory=in_memory)


def test_its_classes_are_the_19_that_are_evaluated_and_others_do_not_count(tmp_path: Path) -> None:
    unpack(tmp_path)
    splits = load(f"cityscapes:{tmp_path}", root=None, seed=0, image_size=None)
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (6, 6)
    assert splits.train.task == "segmentation"
    assert (splits.train.classes, splits.train.input_shape) == (19, (3, 8, 16))
    assert splits.train.meaning.labels[:3] == ("road", "sidewalk", "building")
    mask = splits.train.labels[0].flatten().tolist()
    assert [mask[number] for number in CLASSES] == [*range(19)]
    assert {mask[number] for number in range(34) if number not in CLASSES} == {255}
    assert splits.train.ids[0] == "aachen/aachen_000000_000019"


def test_pictures_are_brought_to_a_size_and_masks_by_the_nearest_pixel_or_read_when_asked_for(tmp_path: Path) -> None:
    unpack(tmp_path, height=16)
    splits = load(f"cityscapes:{tmp_path}", root=None, seed=0, image_size=4)
    assert splits.train.input_shape == (3, 4, 8)
    assert set(splits.train.labels.unique().tolist()) <= {*range(19), 255}
    later = load(f"cityscapes:{tmp_path}", root=None, seed=0, image_size=4, in_memory=False)
    places = torch.tensor([5, 0])
    assert torch.equal(later.train.inputs[places], splits.train.inputs[places])


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="unpack"):
        read(tmp_path)
    unpack(tmp_path)
    lost = tmp_path / "gtFine" / "val" / "bonn" / "bonn_000001_000019_gtFine_labelIds.png"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(MissingFile, match=r"bonn_000001.*labelIds"):
        read(tmp_path)
    lost.write_bytes(kept[:40])
    with pytest.raises(InvalidValue, match="cannot be read"):
        read(tmp_path)
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(lost)
    with pytest.raises(InvalidValue, match="is no mask"):
        read(tmp_path)
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(lost)
    with pytest.raises(InvalidValue, match="another size"):
        read(tmp_path)
