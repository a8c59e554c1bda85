"""NYUv2 in the layout in which it is prepared for learning several tasks at once, with generated rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from comity.data import Splits, load
from comity.data.nyuv2 import CLASSES
from comity.errors import InvalidValue, MissingFile


def unpack(folder: Path, *, count: int = 11, height: int = 4, width: int = 6) -> None:
    """Rooms whose first column was not measured, and whose number is in their colours."""
    draws = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("image", "label", "depth", "normal"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            image = np.full((height, width, 3), number / count)
            label = draws.integers(0, len(CLASSES), (height, width)).astype(float)
            depth, normal = draws.uniform(1, 4, (height, width, 1)), draws.normal(size=(height, width, 3))
            label[:, 0], depth[:, 0], normal[:, 0] = -1, 0, 0
            for kind, values in (("image", image), ("label", label), ("depth", depth), ("normal", normal)):
                np.save(folder / split / kind / f"{number}.npy", values)


def read(folder: Path, *, in_memory: bool = True) -> Splits:
    return load(f"nyuv2:{folder}", root=None, seed=0, image_size=None, in_memory=in_memory)


def test_a_room_has_classes_depth_and_normals_and_what_was_not_measured_does_not_count(tmp_path: Path) -> None:
    unpack(tmp_path)
    splits = read(tmp_path)
    assert splits.test is not None
    train = splits.train
    assert (len(train), train.input_shape, train.task) == (11, (3, 4, 6), "several")
    assert [(head.name, head.kind, head.size) for head in train.heads] == [
        ("mask", "segmentation", 13),
        ("depth", "regression", 1),
        ("normal", "regression", 3),
    ]
    # By number: 2 comes before 10.
    assert train.ids[2:3] + train.ids[-1:] == ("train/2", "train/10")
    assert torch.allclose(train.inputs[:, 0, 0, 0], torch.arange(11) / 11)
    stored = np.load(tmp_path / "train" / "normal" / "3.npy")
    mask, depth, normal = (train.targets[name] for name in ("mask", "depth", "normal"))
    assert torch.equal(normal[3, :, 2, 5], torch.from_numpy(stored[2, 5]).float())
    assert set(mask[..., 0].unique().tolist()) == {255}
    assert int(mask[..., 1:].max()) <= 12
    assert depth.shape == (11, 1, 4, 6)
    for each in (depth, normal):
        assert bool(each[..., 0].isnan().all())
        assert bool(each[..., 1:].isfinite().all())


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    unpack(tmp_path)
    places = torch.tensor([10, 0])
    assert torch.equal(read(tmp_path, in_memory=False).train.inputs[places], read(tmp_path).train.inputs[places])


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="Liu"):
        read(tmp_path)
    unpack(tmp_path, count=2)
    place = tmp_path / "val" / "depth" / "1.npy"
    kept = np.load(place)
    place.unlink()
    with pytest.raises(MissingFile, match=r"depth.1\.npy"):
        read(tmp_path)
    for wrong, said in (
        (kept[..., 0], "is none of NYUv2"),
        (kept[:2], "another size"),
        (np.where(kept > 2, np.nan, kept), "finite"),
        (np.array([None]), "cannot be read"),
    ):
        np.save(place, wrong)
        with pytest.raises(InvalidValue, match=said):
            read(tmp_path)
    np.save(place, kept)
    np.save(tmp_path / "val" / "label" / "1.npy", np.full((4, 6), 40.0))
    with pytest.raises(InvalidValue, match="13 classes"):
        read(tmp_path)
