"""Decoders of files that hold samples or weights: archives, tables, texts, images, marks, what a model begins with."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet
from pydicom.dataset import FileDataset, FileMetaDataset  # type: ignore[import-untyped, unused-ignore]
from pydicom.uid import ExplicitVRLittleEndian  # type: ignore[import-untyped, unused-ignore]

from comity.data.config import TableConfig
from comity.data.dataset import Dataset
from comity.data.sources import load
from comity.data.splitting import protected
from comity.models.weights import begin_with, read_weights
from tests.fuzz.decoder import MEBIBYTE, Decoder, scratch, written

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
CSV = b'age,smoker,outcome,rare\n50,yes,ill,1\n61,no,well,0\n"47.5",,well,no\n38,no,ill,\n'
CLASSES = TableConfig(
    target="outcome",
    columns=("age", "smoker"),
    categories={"smoker": ("yes", "no")},
    fill={"smoker": "no"},
    protected="rare",
)
NUMBERS = TableConfig(
    target="age",
    columns=("smoker",),
    categories={"smoker": ("yes", "no")},
    missing=("",),
    fill={"smoker": "no"},
    kind="numbers",
)


def decoders() -> Iterator[Decoder]:
    """Each kind of source that is read from files, and the other files that a node's configuration may name."""
    yield Decoder("npz", lambda data: _source("npz", written("data.npz", data).name), tuple(_archives()))
    yield Decoder("array of an npz", _array, (_saved(np.arange(12, dtype=np.float32).reshape(4, 3)),))
    yield Decoder("targets of an npz", _targets, tuple(map(_saved, _kinds_of_targets())))
    yield Decoder("csv", _csv, (CSV, CSV.replace(b",", b";"), CSV.decode().encode("utf-16")))
    yield Decoder("parquet", _parquet, (_table(),), memory=16 * MEBIBYTE)
    yield Decoder("lines of a text", _lines, (b"0\tgood film\n1\tbad film\n" * 8, b"bad\tno\ngood\tyes\n" * 8))
    yield Decoder("class of a text", _class, (b"good film\nfine\n" * 8,))
    yield Decoder("image", _image, tuple(_images()), memory=16 * MEBIBYTE)
    yield Decoder("dicom", _dicom, (_slice(),), memory=16 * MEBIBYTE)
    yield Decoder("marks of what is protected", _marks, (b"0\n2\n",))
    weights = safetensors.torch.save(dict(torch.nn.Linear(3, 2).state_dict()))
    yield Decoder("weights to begin with", _weights, (weights,))


def _source(kind: str, name: str, image_size: int | None = None, table: TableConfig | None = None) -> object:
    return load(f"{kind}:{name}", root=scratch(), seed=0, image_size=image_size, table=table)


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _archives() -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, x=np.zeros((4, 3), np.float32), y=np.array([0, 1, 1, 0]))
        yield file.getvalue()


def _array(data: bytes) -> object:
    """An array in an archive that is whole otherwise, so that it gets past the archive's sums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", data)
        archive.writestr("y.npy", _saved(np.array([0, 1, 1, 0])))
    return _source("npz", written("array.npz", file.getvalue()).name)


def _lines(data: bytes) -> object:
    written("lines/train.tsv", data)
    return _source("text", "lines")


def _class(data: bytes) -> object:
    written("classes/bad", b"bad film\n" * 8)
    written("classes/good", data)
    return _source("text", "classes")


def _images() -> Iterator[bytes]:
    for form in ("PNG", "JPEG", "BMP", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, form)
        yield file.getvalue()


def _image(data: bytes) -> object:
    """An image beside one that is whole, as it is and brought to a size."""
    written("images/a/first.png", next(_images()))
    written("images/a/second.png", data)
    _source("imagefolder", "images", 8)
    return _source("imagefolder", "images")


def _kinds_of_targets() -> Iterator[NDArray[np.generic]]:
    """Targets of four samples of 2 x 2 pixels, of every kind of task."""
    yield np.array([0, 1, 1, 0])
    yield np.array([[True, False, True]] * 4)
    yield np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)
    yield np.array([[[0, 1], [2, 255]]] * 4, dtype=np.uint8)


def _targets(data: bytes) -> object:
    """Targets beside inputs that are whole: alone, and as those of one of two heads."""
    inputs = _saved(np.zeros((4, 1, 2, 2), np.float32))
    for name, arrays in (
        ("alone.npz", {"y": data}),
        ("heads.npz", {"y.one": data, "y.other": _saved(np.array([0, 1, 1, 0]))}),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for array, bytes_of in ({"x": inputs} | arrays).items():
                archive.writestr(f"{array}.npy", bytes_of)
        found = _source("npz", written(name, file.getvalue()).name)
    return found


def _csv(data: bytes) -> object:
    """A table with classes; and read once more as one with numbers."""
    name = written("data.csv", data).name
    return _source("csv", name, table=CLASSES), _source("csv", name, table=NUMBERS)


def _table() -> bytes:
    file = io.BytesIO()
    table = pa.table(
        {
            "age": [50.0, 61.0, 47.5, 38.0],
            "smoker": ["yes", "no", None, "no"],
            "outcome": ["ill", "well", "well", "ill"],
            "rare": [True, False, False, None],
        }
    )
    parquet.write_table(table, file)
    return file.getvalue()


def _parquet(data: bytes) -> object:
    return _source("parquet", written("data.parquet", data).name, table=CLASSES)


def _slice() -> bytes:
    """A DICOM picture."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    found.Rows, found.Columns = 8, 8
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 16, 12, 11, 0
    found.PixelData = PIXELS[..., 0].astype(np.uint16).tobytes()
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _dicom(data: bytes) -> object:
    written("slices/a/first.dcm", _slice())
    written("slices/a/second.dcm", data)
    with warnings.catch_warnings():
        # Of what is odd and can be read all the same, pydicom warns; the suite makes errors of warnings.
        warnings.simplefilter("ignore", UserWarning)
        return _source("imagefolder", "slices")


def _marks(data: bytes) -> object:
    """The identifiers of samples that never leave."""
    samples = Dataset(torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]), 1.0, 2, ids=tuple("0123"))
    return protected(samples, written("marks.txt", data), 0, "the pool")


def _weights(data: bytes) -> object:
    weights = read_weights(written("weights.safetensors", data))
    return begin_with(torch.nn.Linear(3, 2), weights)
