"""Every source reads what it should and refuses the rest in one line."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets  # type: ignore[import-untyped, unused-ignore]

from comity.data import Dataset, Splits, load
from comity.errors import InvalidValue, MissingFile, UsageError


def read(source: str, *, root: Path | None = None, seed: int = 0, image_size: int | None = None) -> Splits:
    return load(source, root=root, seed=seed, image_size=image_size)


def refused(error: type[UsageError], source: str, said: str, **settings: Any) -> UsageError:
    with pytest.raises(error, match=said) as caught:
        read(source, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("source", ["digit", "digits:x", "npz", "npz:", "Image_Folder:x"])
def test_an_unknown_source_is_refused_with_the_nearest(source: str) -> None:
    error = refused(InvalidValue, source, "no such data source")
    assert "did you mean" in error.action


@pytest.mark.parametrize("source", ["", ":", "database"])
def test_of_sources_that_are_nothing_like_it_none_is_suggested(source: str) -> None:
    assert refused(InvalidValue, source, "no such data source").action == "comity data lists them"


def test_only_imagefolder_takes_an_image_size(tmp_path: Path) -> None:
    refused(InvalidValue, "digits", "image size", image_size=8)
    refused(InvalidValue, f"imagefolder:{tmp_path}", "image size", image_size=0)


class TestDigits:
    def test_splits_are_stratified_and_stored_as_they_come(self) -> None:
        splits = read("digits")
        assert splits.test is not None
        assert (len(splits.train), len(splits.test)) == (1347, 450)
        assert (splits.train.input_shape, splits.train.inputs.dtype) == ((1, 8, 8), torch.float32)
        assert (float(splits.train.inputs.max()), splits.train.scale, splits.train.classes) == (16.0, 1 / 16, 10)
        shares = torch.bincount(splits.test.labels) / torch.bincount(
            torch.cat((splits.train.labels, splits.test.labels))
        )
        assert bool((shares - 0.25).abs().max() < 0.01)

    def test_the_seed_decides_the_split(self) -> None:
        one, same, other = read("digits").train, read("digits").train, read("digits", seed=1).train
        assert torch.equal(one.inputs, same.inputs)
        assert not torch.equal(one.inputs, other.inputs)

    @pytest.mark.parametrize("seed", [-1, 2**32])
    def test_a_seed_out_of_range_is_refused(self, seed: int) -> None:
        refused(InvalidValue, "digits", "seed", seed=seed)


def idx(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Bytes in MNIST's own format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


class TestTorchvision:
    def test_a_set_in_torchvisions_layout_is_read_as_it_is(self, tmp_path: Path) -> None:
        raw = tmp_path / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for split, count in (("train", 3), ("t10k", 2)):
            images = np.arange(count * 784, dtype=np.uint32).astype(np.uint8).reshape(count, 28, 28)
            (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.array([9, 0, 1][:count], dtype=np.uint8)))
        splits = read("torchvision:FashionMNIST", root=tmp_path)
        assert splits.test is not None
        assert (splits.train.inputs.shape, splits.test.inputs.shape) == ((3, 1, 28, 28), (2, 1, 28, 28))
        assert (splits.train.inputs.dtype, splits.train.scale, splits.train.classes) == (torch.uint8, 1 / 255, 10)
        assert splits.train.labels.tolist() == [9, 0, 1]
        assert int(splits.train.inputs[0, 0, 1, 2]) == 30
        (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
        refused(InvalidValue, "torchvision:FashionMNIST", "cannot read", root=tmp_path)

    @pytest.mark.parametrize(("name", "channels_at"), [("CIFAR10", 3), ("CIFAR100", 3), ("SVHN", 1)])
    def test_colour_images_come_with_their_channels_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, channels_at: int
    ) -> None:
        # torchvision accepts these sets' own files only, by their checksums, so what it gives is made here.
        images = np.moveaxis(np.arange(2 * 3 * 32 * 32).astype(np.uint8).reshape(2, 3, 32, 32), 1, channels_at)
        labels = {"labels": np.array([1, 9])} if name == "SVHN" else {"targets": [1, 9]}
        asked = []

        def give(root: str, **which: Any) -> SimpleNamespace:
            asked.append({"root": root} | which)
            return SimpleNamespace(data=images, **labels)

        monkeypatch.setattr(datasets, name, give)
        train = read(f"torchvision:{name}", root=tmp_path).train
        assert train.inputs.flatten().tolist() == np.arange(2 * 3 * 32 * 32).astype(np.uint8).tolist()
        assert (train.input_shape, train.labels.tolist()) == ((3, 32, 32), [1, 9])
        common = {"root": str(tmp_path), "download": False}
        splits = [{"split": "train"}, {"split": "test"}] if name == "SVHN" else [{"train": True}, {"train": False}]
        assert asked == [common | split for split in splits]

    def test_a_missing_set_says_how_to_fetch_it(self, tmp_path: Path) -> None:
        for name in ("CIFAR10", "CIFAR100", "FashionMNIST", "MNIST", "SVHN"):
            for root in (None, tmp_path, tmp_path / "absent"):
                error = refused(MissingFile, f"torchvision:{name}", name, root=root)
                assert "download=True" in error.action

    def test_a_set_that_is_not_read_is_refused(self, tmp_path: Path) -> None:
        refused(InvalidValue, "torchvision:ImageNet", "CIFAR10", root=tmp_path)

    @pytest.mark.data
    @pytest.mark.skipif("COMITY_DATA" not in os.environ, reason="COMITY_DATA names no folder")
    def test_mnist(self) -> None:
        splits = read("torchvision:MNIST", root=Path(os.environ["COMITY_DATA"]))
        assert splits.test is not None
        assert (splits.train.inputs.shape, len(splits.test)) == ((60_000, 1, 28, 28), 10_000)
        assert torch.bincount(splits.train.labels).tolist()[:2] == [5923, 6742]


def save_images(folder: Path, count: int, *, value: int = 100, side: tuple[int, int] = (6, 6)) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        height, width = side
        Image.new("RGB", (width, height), (value + index,) * 3).save(folder / f"{index:03}.png")


class TestImagefolder:
    def test_train_and_test_folders(self, tmp_path: Path) -> None:
        save_images(tmp_path / "train" / "cat", 3)
        save_images(tmp_path / "train" / "ant", 2, value=10)
        (tmp_path / "train" / "bee").mkdir()
        save_images(tmp_path / "test" / "cat", 1)
        splits = read(f"imagefolder:{tmp_path}")
        assert splits.test is not None
        assert splits.train.labels.tolist() == [0, 0, 2, 2, 2]
        assert splits.train.inputs[:, 0, 0, 0].tolist() == [10, 11, 100, 101, 102]
        assert splits.test.labels.tolist() == [2]
        for split in (splits.train, splits.test):
            assert (split.input_shape, split.inputs.dtype, split.classes) == ((3, 6, 6), torch.uint8, 3)

    def test_one_folder_relative_to_the_root(self, tmp_path: Path) -> None:
        save_images(tmp_path / "pets" / "cat", 2)
        (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
        (tmp_path / "pets" / ".cache").mkdir()
        Image.new("L", (6, 6), 50).save(tmp_path / "pets" / "cat" / "grey.JPG")
        splits = read("imagefolder:pets", root=tmp_path)
        assert splits.test is None
        assert (len(splits.train), splits.train.classes, splits.train.input_shape) == (3, 1, (3, 6, 6))

    def test_sizes_must_agree_or_be_brought_to_one(self, tmp_path: Path) -> None:
        save_images(tmp_path / "cat", 1, side=(6, 9))
        save_images(tmp_path / "dog", 1, side=(20, 8))
        error = refused(InvalidValue, f"imagefolder:{tmp_path}", "another size")
        assert error.action == "set `image_size`"
        train = read(f"imagefolder:{tmp_path}", image_size=8).train
        assert train.inputs.shape == (2, 3, 8, 8)
        assert set(train.inputs.flatten().tolist()) == {100}

    def test_an_image_is_brought_to_a_size_by_its_central_square(self, tmp_path: Path) -> None:
        (tmp_path / "cat").mkdir()
        wide = np.zeros((400, 1200, 3), dtype=np.uint8)
        wide[:, 400:800] = (0, 100, 200)
        Image.fromarray(wide).save(tmp_path / "cat" / "wide.png")
        Image.fromarray(wide).save(tmp_path / "cat" / "wide.jpg")
        jpeg, png = read(f"imagefolder:{tmp_path}", image_size=4).train.inputs
        assert png[:, 0, 1:3].tolist() == [[0, 0], [100, 100], [200, 200]]
        assert int((jpeg[:, :, 1:3].int() - png[:, :, 1:3].int()).abs().max()) <= 5

    def test_the_splits_must_have_one_size(self, tmp_path: Path) -> None:
        save_images(tmp_path / "train" / "cat", 1)
        save_images(tmp_path / "test" / "cat", 1, side=(7, 7))
        refused(InvalidValue, f"imagefolder:{tmp_path}", "not like the one to train on")

    def test_an_unreadable_image_is_named(self, tmp_path: Path) -> None:
        save_images(tmp_path / "cat", 3)
        (tmp_path / "cat" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n then nothing")
        refused(InvalidValue, f"imagefolder:{tmp_path}", r"001\.png")
        (tmp_path / "cat" / "001.png").write_bytes((tmp_path / "cat" / "002.png").read_bytes()[:50])
        refused(InvalidValue, f"imagefolder:{tmp_path}", r"001\.png")
        Image.new("I;16", (6, 6)).save(tmp_path / "cat" / "001.png")
        refused(InvalidValue, f"imagefolder:{tmp_path}", r"001\.png.* 8 bits")
        (tmp_path / "cat" / "001.png").write_bytes(b"")
        refused(InvalidValue, f"imagefolder:{tmp_path}", r"001\.png")

    def test_what_is_not_there_is_refused(self, tmp_path: Path) -> None:
        refused(MissingFile, f"imagefolder:{tmp_path}/absent", "folder")
        file = tmp_path / "file"
        file.touch()
        refused(MissingFile, f"imagefolder:{file}", "folder")
        (tmp_path / "empty").mkdir()
        refused(InvalidValue, f"imagefolder:{tmp_path}/empty", "holds no folder")
        refused(InvalidValue, f"imagefolder:{tmp_path}", "holds no image")
        save_images(tmp_path / "train" / "cat", 1)
        save_images(tmp_path / "test" / "dog", 1)
        refused(InvalidValue, f"imagefolder:{tmp_path}", "dog")


class TestNpz:
    x, y = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.array([0, 2, 1], dtype=np.int32)

    def save(self, folder: Path, **arrays: Any) -> str:
        np.savez(folder / "data.npz", **arrays)
        return f"npz:{folder / 'data.npz'}"

    def test_both_splits(self, tmp_path: Path) -> None:
        self.save(tmp_path, x=self.x, y=self.y, x_test=self.x[:1], y_test=np.array([3]))
        splits = read("npz:data.npz", root=tmp_path)
        assert splits.test is not None
        assert splits.train.inputs.tolist() == self.x.tolist()
        assert (splits.train.labels.tolist(), splits.train.labels.dtype) == ([0, 2, 1], torch.int64)
        assert (splits.train.classes, splits.test.classes, len(splits.test)) == (4, 4, 1)
        assert splits.train.scale == 1 / 255

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8"])
    def test_floats_are_stored_as_float32_and_not_scaled(self, tmp_path: Path, dtype: str) -> None:
        train: Dataset = read(self.save(tmp_path, x=self.x.astype(dtype), y=self.y, classes=5)).train
        assert (train.inputs.dtype, train.scale, train.classes) == (torch.float32, 1.0, 5)
        assert train.inputs.tolist() == self.x.tolist()

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"y": np.array([0, -1, 1])}, "label is out of range"),
            ({"classes": 2}, "label is out of range"),
            ({"classes": 0}, "classes"),
            ({"y": np.array([0, 1])}, "x in"),
            ({"y": np.array([[0], [1], [2]])}, "y in"),
            ({"x": np.zeros(3)}, "x in"),
            ({"x": np.zeros((3, 2), dtype=np.int64)}, "x in"),
            ({"x": np.array(["a", "b", "c"])}, "x in"),
            ({"x": np.array([[1.0], [np.nan], [np.inf]])}, "received 2"),
            ({"x": np.array([[1.0], [1e300], [0.0]])}, "received 1"),
            ({"x": np.zeros((0, 2)), "y": np.array([], dtype=np.int64)}, "no sample"),
            ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "no sample"),
            ({"x": np.zeros((0, 2)), "y": np.zeros((0, 3))}, "no sample"),
            ({"x": np.zeros((0, 2)), "y": np.zeros((0, 3), dtype=bool)}, "no sample"),
            ({"x": np.array([{}, {}, {}], dtype=object)}, "cannot be read"),
            ({"x_test": np.zeros((1, 2, 2), dtype=np.uint8)}, "y_test"),
            ({"x_test": np.zeros((1, 2, 3), dtype=np.uint8), "y_test": np.array([0])}, "not like the one to train on"),
            ({"x_test": np.zeros((1, 2, 2)), "y_test": np.array([0])}, "not like the one to train on"),
            ({"labels": np.array([0])}, "arrays"),
        ],
    )
    def test_arrays_that_cannot_be_used_are_refused(self, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
        refused(InvalidValue, self.save(tmp_path, **({"x": self.x, "y": self.y} | changed)), said)

    def test_files_that_cannot_be_used_are_refused(self, tmp_path: Path) -> None:
        refused(MissingFile, f"npz:{tmp_path}/absent.npz", "archive")
        refused(MissingFile, f"npz:{tmp_path}", "archive")
        for content in (b"", b"PK\x03\x04 cut off", b"text"):
            (tmp_path / "bad.npz").write_bytes(content)
            refused(InvalidValue, f"npz:{tmp_path}/bad.npz", "cannot be read")
        np.save(tmp_path / "one.npy", self.x)
        refused(InvalidValue, f"npz:{tmp_path}/one.npy", "one array")
        damaged = bytearray(Path(self.save(tmp_path, x=self.x, y=self.y).removeprefix("npz:")).read_bytes())
        damaged[damaged.index(self.x.tobytes())] ^= 1
        (tmp_path / "bad.npz").write_bytes(damaged)
        refused(InvalidValue, f"npz:{tmp_path}/bad.npz", "cannot be read")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y.one": np.array([0, 2**40, 1, 1]), "y.other": np.array([0, 1, 1, 0])}, "65536"),
        ({"y": np.array([0, 2**40, 1, 1])}, "65536"),
        ({"y": np.array([0, 2**16, 1, 1])}, "65536"),
        ({"y.one": np.zeros((4, 0), np.float32), "y.other": np.array([0, 1, 1, 0])}, "65536"),
        ({"y.One Two": np.array([0, 1, 1, 0]), "y.other": np.array([0, 1, 1, 0])}, "cannot be called so"),
        ({"y." + "a" * 10_000: np.array([0, 1, 1, 0]), "y.other": np.array([0, 1, 1, 0])}, "cannot be called so"),
    ],
    ids=["a head's class", "a class", "one class too many", "no targets", "a head's name", "a name without end"],
)
def test_targets_that_no_contract_can_name_are_one_line(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]], said: str
) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 1, 2, 2), np.float32), **arrays)  # type: ignore[arg-type]
    refused(InvalidValue, f"npz:{tmp_path}/a.npz", said)


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """Whoever opened it would wait for somebody to write."""
    (tmp_path / "cat").mkdir()
    os.mkfifo(tmp_path / "cat" / "a.png")
    refused(InvalidValue, f"imagefolder:{tmp_path}", "is no file")


def test_an_archive_damaged_anywhere_is_one_line(tmp_path: Path) -> None:
    """Methods and versions that nobody knows, sizes that nobody has, and streams that end amid a block."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(60, dtype=np.uint8).reshape(6, 10), y=np.arange(6))
    whole = path.read_bytes()
    for at in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            try:
                read(f"npz:{path}")
            except UsageError as error:
                assert "\n" not in str(error)  # noqa: PT017
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (549755813888,), }"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", array)
    refused(InvalidValue, f"npz:{path}", "cannot be read")
