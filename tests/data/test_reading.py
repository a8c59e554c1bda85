"""Inputs that are read when they are asked for are those that are in memory, in the same order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from comity.data import DataConfig, Splits, load_data
from comity.data.dataset import Dataset
from comity.data.digests import digest
from comity.data.reading import ReadInputs
from comity.errors import InvalidValue
from comity.models import build
from comity.node.holdings import Holdings
from comity.training import OptimizerSpec, Secret, Supervised

CODE = """
import torch

class Numbers(torch.utils.data.Dataset):
    classes = ["even", "odd"]
    read = 0
    def __len__(self):
        return 40
    def __getitem__(self, index):
        Numbers.read += 1
        return torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(index)), index % 2

def numbers():
    return Numbers()

class Odd(Numbers):
    def __getitem__(self, index):
        value = torch.zeros(1, 4, 4) if index < 39 else torch.zeros(1, 4, 5)
        return (value if index != 38 else value + float("nan")), index % 2

def odd():
    return Odd()
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "their_numbers.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("their_numbers", None)


def load(folder: Path, name: str = "numbers", **settings: Any) -> Splits:
    return load_data(DataConfig.model_validate({"source": f"python:their_numbers:{name}", "root": folder, **settings}))


def trained(splits: Splits) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The weights that a training ends in, and the losses of all samples under them."""
    task = Supervised(
        build("mlp", input_shape=splits.train.input_shape, outputs=2, options={"hidden": 8}, seed=0),
        splits,
        normalization=((), ()),
        batch_size=8,
        evaluation_batch_size=16,
        secret=Secret(b"s", "case"),
        device=torch.device("cpu"),
    )
    made = task.trajectory(task.initial_state, OptimizerSpec("adam", 0.01), iterations=21, period=20, round=1)
    state = {name: each.clone() for snapshot in made for name, each in snapshot.state.items()}
    return list(state.values()), task.losses(state)


def test_a_training_is_the_same_to_the_bit(module: Path) -> None:
    (here, losses), (read, of_read) = trained(load(module)), trained(load(module, in_memory=False))
    assert all(torch.equal(*each) for each in zip(here, read, strict=True))
    assert torch.equal(losses, of_read)


def test_nothing_is_read_before_it_is_asked_for_but_labels(module: Path) -> None:
    train = load(module, in_memory=False, splits={"test": {"share": 0.25}}).train
    numbers = sys.modules["their_numbers"].Numbers
    assert isinstance(train.inputs, ReadInputs)
    assert (len(train), train.input_shape, train.meaning.labels) == (30, (1, 4, 4), ("even", "odd"))
    numbers.read = 0
    some = train.inputs[torch.tensor([3, 1])]
    assert (numbers.read, some.shape) == (2, (2, 1, 4, 4))
    whole = load(module).train
    places = [int(train.ids[3]), int(train.ids[1])]
    assert torch.equal(some, whole.all_inputs[torch.tensor(places)])


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), number * 20, np.uint8)).save(path)
    found = [
        load_data(DataConfig(source=f"imagefolder:{tmp_path}", in_memory=in_memory)).train
        for in_memory in (True, False)
    ]
    assert torch.equal(found[0].all_inputs, found[1].all_inputs)
    assert (found[0].scale, found[0].kind, found[0].ids) == (found[1].scale, found[1].kind, found[1].ids)
    before = digest(Splits(found[1]))
    (tmp_path / "1" / "1.png").write_bytes((tmp_path / "1" / "3.png").read_bytes() + b"0")
    after = load_data(DataConfig(source=f"imagefolder:{tmp_path}", in_memory=False)).train
    assert digest(Splits(after)) != before


def test_what_cannot_be_read_later_is_one_line(module: Path) -> None:
    inputs = load(module, "odd", in_memory=False).train.inputs
    with pytest.raises(InvalidValue, match="not all finite"):
        inputs[torch.tensor([0, 38])]
    with pytest.raises(InvalidValue, match="cannot be read"):
        inputs[torch.tensor([0, 39])]
    with pytest.raises(InvalidValue, match="in_memory is not for 'digits'"):
        load_data(DataConfig(source="digits", in_memory=False))


def test_a_normalization_is_computed_block_by_block(module: Path) -> None:
    found = [Holdings("clinic", load(module, in_memory=each)).normalization() for each in (True, False)]
    assert found[0] == found[1]
    inputs = load(module).train.all_inputs
    std = float(f"{float(inputs.std(correction=0)):.1e}")
    assert found[0].std == (std,)
    # Where the mean is, is said as finely as the samples vary.
    assert abs(found[0].mean[0] - float(inputs.mean())) <= 0.06 * std


def test_a_feature_far_from_zero_is_normalized_all_the_same() -> None:
    # Years, say: the difference of the squares of such numbers is all rounding.
    years = 2000 + torch.rand(500, 1, generator=torch.Generator().manual_seed(0)).double()
    splits = Splits(
        *(
            Dataset(each, torch.zeros(len(each), dtype=torch.int64), 1.0, 2)
            for each in (years.float(), years[:5].float())
        )
    )
    found = Holdings("clinic", splits).normalization()
    normalized = (years - found.mean[0]) / found.std[0]
    assert abs(float(normalized.mean())) < 0.1
    assert float(normalized.std()) == pytest.approx(1, abs=0.1)


def test_a_feature_that_is_the_same_everywhere_is_named() -> None:
    inputs = torch.tensor([[0.1, 7.3], [0.7, 7.3], [0.4, 7.3]])
    splits = Splits(*(Dataset(inputs, torch.zeros(3, dtype=torch.int64), 1.0, 2) for _ in range(2)))
    with pytest.raises(InvalidValue, match="channel 1 is the same in all samples"):
        Holdings("clinic", splits).normalization()
