"""Pictures are read as they are, and what is none is counted and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset  # type: ignore[import-untyped, unused-ignore]
from pydicom.uid import ExplicitVRLittleEndian  # type: ignore[import-untyped, unused-ignore]

from comity.data import DataConfig, Splits, load_data
from comity.data.pictures import Form, decode
from comity.errors import InvalidValue


def load(folder: Path, **settings: Any) -> Splits:
    return load_data(DataConfig.model_validate({"source": f"imagefolder:{folder}", **settings}))


def save(path: Path, pixels: Any, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **how)
    return path


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOURS = np.stack([GREY, GREY // 2, GREY // 4], axis=2)


def test_grey_pictures_have_one_channel_unless_others_have_colours(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", GREY)
    save(tmp_path / "b" / "1.png", GREY)
    train = load(tmp_path).train
    assert (train.input_shape, train.inputs.dtype) == ((1, 3, 4), torch.uint8)
    assert torch.equal(train.inputs[0, 0], torch.from_numpy(GREY))
    assert load(tmp_path, channels=3).train.input_shape == (3, 3, 4)
    save(tmp_path / "b" / "2.png", COLOURS)
    assert load(tmp_path).train.input_shape == (3, 3, 4)
    assert load(tmp_path, channels=1).train.input_shape == (1, 3, 4)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    deep = (GREY.astype(np.uint16) * 257) + 1
    save(tmp_path / "a" / "1.png", deep)
    save(tmp_path / "b" / "1.tiff", deep)
    train = load(tmp_path).train
    assert (train.inputs.dtype, train.scale) == (torch.float32, 1.0)
    assert torch.equal(train.inputs[0], train.inputs[1])
    assert torch.allclose(train.inputs[0, 0], torch.from_numpy(deep.astype(np.float32)) / 65535)
    assert load(tmp_path, image_size=2).train.input_shape == (1, 2, 2)
    save(tmp_path / "b" / "2.png", GREY)
    with pytest.raises(InvalidValue, match="another depth"):
        load(tmp_path)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "a" / "1.png", COLOURS, exif=turned)
    save(tmp_path / "b" / "1.png", np.rot90(COLOURS, -1))
    train = load(tmp_path).train
    assert torch.equal(train.inputs[0], train.inputs[1])


def test_folders_in_a_classs_folder_belong_to_it_and_the_rest_is_counted(tmp_path: Path) -> None:
    save(tmp_path / "a" / "2020" / "1.png", GREY)
    save(tmp_path / "a" / "2.png", GREY)
    save(tmp_path / "b" / "1.png", GREY)
    (tmp_path / "c").mkdir()
    for odd in ("README.txt", "a/notes.doc", "a/Thumbs.db", ".hidden", "__MACOSX/a/1.png"):
        (tmp_path / odd).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / odd).write_bytes(b"x")
    splits = load(tmp_path)
    assert (splits.train.classes, splits.train.meaning.labels) == (3, ("a", "b", "c"))
    assert splits.train.ids == ("a/2.png", "a/2020/1.png", "b/1.png")
    notes = " | ".join(splits.notes)
    assert "2 files passed over" in notes
    assert "README.txt" in notes
    assert "*.doc" in notes
    assert "empty folders: c" in notes


def test_a_link_to_a_folder_above_is_counted_and_not_followed(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", GREY)
    save(tmp_path / "b" / "1.png", GREY)
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "others").symlink_to(tmp_path / "a")
    splits = load(tmp_path)
    # Links to elsewhere are followed.
    assert splits.train.ids == ("a/1.png", "b/1.png", "b/others/1.png")
    assert "a link to a folder that it lies in" in " | ".join(splits.notes)


def test_a_class_of_which_nothing_is_read_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", GREY)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.heic").write_bytes(b"x")
    with pytest.raises(InvalidValue, match="b holds no image that is read.*1 other files"):
        load(tmp_path)


def test_a_validation_folder_is_a_split(tmp_path: Path) -> None:
    for part in ("train", "val"):
        save(tmp_path / part / "a" / "1.png", GREY)
        save(tmp_path / part / "b" / "1.png", GREY)
    splits = load(tmp_path)
    assert [name for name, _ in splits.items()] == ["train", "validation"]
    assert splits.train.meaning.labels == ("a", "b")


def test_a_pool_without_labels_is_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "known" / name / "1.png", GREY)
    save(tmp_path / "pool" / "1.png", GREY)
    save(tmp_path / "pool" / "more" / "2.png", GREY)
    (tmp_path / "never.txt").write_text("more/2.png\n")
    pool = {"source": "imagefolder:pool", "labelled": False, "protected": "never.txt"}
    found = load_data(
        DataConfig.model_validate({"source": "imagefolder:known", "root": tmp_path, "splits": {"pool": pool}})
    ).split("pool")
    assert (found.ids, found.labels.tolist(), found.classes) == (("1.png", "more/2.png"), [-1, -1], 2)
    assert found.protected is not None
    assert found.protected.tolist() == [False, True]


def test_folders_that_are_called_otherwise_give_what_equal_ones_give(tmp_path: Path) -> None:
    for label, (ours, theirs) in enumerate((("benign", "2-gutartig"), ("malignant", "1-bösartig"))):
        for number in range(3):
            for folder, name in (("ours", ours), ("theirs", theirs)):
                save(tmp_path / folder / name / f"{number}.png", GREY + label * 10 + number)
    ours = load(tmp_path / "ours").train
    classes = {"2-gutartig": "benign", "1-bösartig": "malignant"}
    theirs = load(tmp_path / "theirs", classes=classes).train
    assert torch.equal(ours.inputs, theirs.inputs)
    assert torch.equal(ours.labels, theirs.labels)
    assert ours.meaning == theirs.meaning


def dicom(path: Path, pixels: Any, **tags: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    found = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    found.Rows, found.Columns = pixels.shape
    found.SamplesPerPixel, found.BitsAllocated, found.BitsStored, found.HighBit = 1, 16, 12, 11
    found.PixelRepresentation, found.PhotometricInterpretation = 0, "MONOCHROME2"
    for name, value in tags.items():
        setattr(found, name, value)
    found.PixelData = pixels.astype("<u2").tobytes()
    found.save_as(path, enforce_file_format=True)


def test_dicom_is_brought_to_what_its_bits_can_say(tmp_path: Path) -> None:
    pixels = np.array([[0, 4095], [2048, 1024]])
    dicom(tmp_path / "a" / "1.dcm", pixels)
    dicom(tmp_path / "b" / "1.dcm", pixels, RescaleSlope="2", RescaleIntercept="-1000")
    dicom(tmp_path / "b" / "2.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    train = load(tmp_path).train
    expected = torch.from_numpy(pixels.astype(np.float32)) / 4095
    assert torch.allclose(train.inputs[0, 0], expected)
    assert torch.allclose(train.inputs[1, 0], expected)
    assert torch.allclose(train.inputs[2, 0], 1 - expected)
    (tmp_path / "a" / "2.dcm").write_bytes(b"no picture")
    with pytest.raises(InvalidValue, match=r"2\.dcm is not an image"):
        load(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_picture_damaged_anywhere_is_one_line(tmp_path: Path) -> None:
    """pydicom's errors have no base in common."""
    pixels = np.array([[0, 4095], [2048, 1024]])
    dicom(tmp_path / "d" / "1.dcm", pixels, RescaleSlope="2", RescaleIntercept="-1000")
    save(tmp_path / "p" / "1.png", COLOURS)
    for path in (tmp_path / "d" / "1.dcm", tmp_path / "p" / "1.png"):
        whole, form = path.read_bytes(), Form(1, is_deep=True) if path.suffix == ".dcm" else Form(3, is_deep=False)
        for at in range(128 if path.suffix == ".dcm" else 0, len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            try:
                decode(path, form, None)
            except InvalidValue as error:
                assert "\n" not in str(error)  # noqa: PT017
