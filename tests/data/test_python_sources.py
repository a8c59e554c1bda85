"""A party's own functions, and those that packages add, are sources."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from comity.data import DataConfig, Splits, load_data
from comity.data.added import added_sources
from comity.data.digests import digest
from comity.data.objects import splits_of
from comity.errors import InvalidValue, MissingFile

CODE = """
import torch

class Pairs(torch.utils.data.Dataset):
    classes = ["benign", "malignant"]
    def __len__(self):
        return 6
    def __getitem__(self, index):
        return torch.full((1, 2, 2), index / 6), index % 2

def pairs():
    return Pairs()

def drawn(seed, root):
    torch.Generator().manual_seed(seed)
    return {"train": (torch.full((4, 3), float(seed)), torch.tensor([0, 1, 0, 1])), "pool": (torch.zeros(2, 3), None)}

def placed(location):
    assert location == "here"
    return pairs()

def broken():
    raise RuntimeError("no disk")

def nothing():
    return 3

table = Pairs()
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "their_samples.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("their_samples", None)


def load(folder: Path, name: str, **settings: int) -> Splits:
    return load_data(DataConfig(source=f"python:their_samples:{name}", root=folder, **settings))  # type: ignore[arg-type]


def test_a_function_gives_a_torch_data_set_with_its_classes(module: Path) -> None:
    for name in ("pairs", "table"):
        train = load(module, name).train
        assert (train.input_shape, train.labels.tolist()) == ((1, 2, 2), [0, 1] * 3)
        assert train.meaning.labels == ("benign", "malignant")
    assert str(module) not in sys.path


def test_a_function_gives_splits_and_is_told_the_seed(module: Path) -> None:
    splits = load(module, "drawn", seed=5)
    assert float(splits.train.inputs[0, 0]) == 5.0
    assert splits.split("pool").labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("name", "said"),
    [("broken", "gives no samples.*RuntimeError: no disk"), ("nothing", "cannot be used.*int")],
)
def test_a_function_that_gives_nothing_is_one_line(module: Path, name: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said) as caught:
        load(module, name)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_said(module: Path) -> None:
    with pytest.raises(MissingFile, match=r"their_samples:other cannot be imported"):
        load(module, "other")
    with pytest.raises(InvalidValue, match="python:<module>:<name>"):
        load_data(DataConfig(source="python:their_samples"))


def test_a_package_adds_a_source_and_replaces_none(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = module / "their_samples-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-samples\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[comity.data]\nscanner = their_samples:placed\ndigits = their_samples:broken\n"
    )
    monkeypatch.syspath_prepend(module)
    added_sources.cache_clear()
    try:
        assert load_data(DataConfig(source="scanner:here")).train.meaning.labels == ("benign", "malignant")
        assert len(load_data(DataConfig(source="digits")).train) == 1347
    finally:
        added_sources.cache_clear()


@pytest.mark.parametrize("drawn", [False, True])
def test_other_inputs_behind_the_same_labels_are_other_data(drawn: bool) -> None:
    draws = torch.Generator().manual_seed(0)

    class Pairs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __init__(self, first: float) -> None:
            self.first = first

        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.full((3,), self.first + index) + drawn * torch.rand(3, generator=draws), index % 2

    one, again, other = (digest(splits_of(Pairs(first), "data", in_memory=False)) for first in (0.0, 0.0, 5.0))
    assert one == again
    # What is drawn anew at each reading tells nothing.
    assert (one == other) == drawn
