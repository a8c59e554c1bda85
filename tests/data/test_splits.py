"""Samples by what they are for: of sources of their own, or seeded shares of those to train on."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from comity.data import DataConfig, Dataset, SplitConfig, Splits, load_data
from comity.errors import InvalidValue, MissingFile


def archive(path: Path, count: int, labels: int = 2) -> str:
    """An archive of so many different samples; returns it as a source."""
    x = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    np.savez(path, x=x, y=np.arange(count) % labels, classes=labels)
    return f"npz:{path}"


def configured(source: str, **splits: dict[str, object]) -> Splits:
    return load_data(DataConfig.model_validate({"source": source, "splits": splits}))


def test_a_share_is_taken_out_of_what_is_trained_on_and_of_each_class_the_same(tmp_path: Path) -> None:
    source = archive(tmp_path / "all.npz", 100)
    splits = configured(source, test={"share": 0.2}, calibration={"share": 0.1}, pool={"share": 0.3})
    parts = [splits.train, splits.split("test"), splits.split("calibration"), splits.split("pool")]
    assert [len(each) for each in parts] == [100 - sum(map(len, parts[1:])), 20, 10, 30]
    ids = [name for each in parts for name in each.ids]
    assert len(set(ids)) == len(ids) == 100
    assert torch.bincount(splits.split("test").labels).tolist() == [10, 10]
    for each in parts:
        # Whatever share it is in, a sample keeps its id.
        assert [str(int(row[0]) // 3) for row in each.inputs] == list(each.ids)


def test_a_share_stays_the_same_whatever_else_there_is(tmp_path: Path) -> None:
    few = configured(archive(tmp_path / "few.npz", 40), validation={"share": 0.5}).split("validation")
    again = configured(archive(tmp_path / "few.npz", 40), validation={"share": 0.5}).split("validation")
    assert few.ids == again.ids
    other = load_data(
        DataConfig(source=f"npz:{tmp_path / 'few.npz'}", seed=1, splits={"validation": SplitConfig(share=0.5)})
    )
    assert few.ids != other.split("validation").ids


def test_a_split_has_a_source_of_its_own(tmp_path: Path) -> None:
    pool = archive(tmp_path / "pool.npz", 7)
    splits = configured(archive(tmp_path / "all.npz", 10), pool={"source": pool, "labelled": False})
    assert (len(splits.train), len(splits.split("pool"))) == (10, 7)
    assert splits.split("pool").labels.tolist() == [-1] * 7
    assert splits.test is None


def test_what_is_protected_is_marked_by_a_list_of_ids_or_a_seeded_share(tmp_path: Path) -> None:
    source = archive(tmp_path / "all.npz", 40)
    (tmp_path / "protected.txt").write_text("\ufeff3\r\n\r\n 5 \n", encoding="utf-8")
    listed = configured(source, pool={"source": source, "protected": tmp_path / "protected.txt"}).split("pool")
    assert listed.protected is not None
    assert torch.nonzero(listed.protected).flatten().tolist() == [3, 5]
    shared = configured(source, pool={"share": 0.5, "protected": 0.25}).split("pool")
    assert shared.protected is not None
    assert int(shared.protected.sum()) in {4, 5, 6}
    # A share of them keeps its marks.
    some = shared.select(torch.arange(4))
    assert some.protected is not None
    assert some.protected.tolist() == shared.protected[:4].tolist()


def test_a_list_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "all.npz", 4)
    (tmp_path / "protected.txt").write_text("9\n")
    with pytest.raises(InvalidValue, match=r"line 1: the split pool has no such sample"):
        configured(source, pool={"source": source, "protected": tmp_path / "protected.txt"})
    with pytest.raises(MissingFile, match="list of protected samples"):
        configured(source, pool={"source": source, "protected": tmp_path / "none.txt"})


def test_a_missing_split_is_one_line_that_says_how_to_configure_it(tmp_path: Path) -> None:
    splits = configured(archive(tmp_path / "all.npz", 10))
    with pytest.raises(InvalidValue, match=r"no split calibration.*\[data.splits.calibration\].*share = 0.2") as caught:
        splits.split("calibration")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "splits",
    [
        {"pool": {}},
        {"pool": {"source": "digits", "share": 0.5}},
        {"train": {"share": 0.5}},
        {"pools": {"share": 0.5}},
        {"pool": {"share": 1.0}},
        {"pool": {"share": 0.5, "protected": 2.0}},
    ],
)
def test_a_split_that_cannot_be_is_refused(splits: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate({"source": "digits", "splits": splits})


def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="No sample is left"):
        configured(archive(tmp_path / "all.npz", 4), test={"share": 0.9}, pool={"share": 0.9})


def test_splits_are_alike_and_samples_have_ids_of_their_own() -> None:
    one = Dataset(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 1.0, 2)
    with pytest.raises(InvalidValue, match="pool is not like"):
        Splits(one, None, {"pool": Dataset(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), 1.0, 2)})
    with pytest.raises(InvalidValue, match="ids of a data set"):
        Dataset(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 1.0, 2, ids=("a", "a"))
    with pytest.raises(InvalidValue, match="marks of protected"):
        Dataset(
            torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 1.0, 2, protected=torch.zeros(3, dtype=torch.bool)
        )


def test_classes_are_left_out_of_the_training_samples_alone() -> None:
    whole = load_data(DataConfig(source="digits", splits={"calibration": SplitConfig(share=0.2)}))
    lacking = load_data(DataConfig(source="digits", without=(9,), splits={"calibration": SplitConfig(share=0.2)}))
    assert 9 not in lacking.train.labels
    assert len(lacking.train) == int((whole.train.labels != 9).sum())
    assert lacking.train.classes == 10
    for name in ("calibration", "test"):
        assert torch.equal(lacking.split(name).labels, whole.split(name).labels)
    assert any("of 9" in note for note in lacking.notes)


def test_an_archive_whose_header_is_of_another_age_is_read(tmp_path: Path) -> None:
    """Its sizes are long integers, as Python 2 wrote them: numpy reads it and warns."""
    source = archive(tmp_path / "new.npz", 4)
    old = tmp_path / "old.npz"
    with ZipFile(tmp_path / "new.npz") as new, ZipFile(old, "w") as file:
        for name in new.namelist():
            content = new.read(name)
            aged = content.replace(b"(4,", b"(4L,").replace(b"}  ", b"} ", 1)
            file.writestr(name, aged if len(aged) == len(content) else content)
    assert torch.equal(load_data(DataConfig(source=f"npz:{old}")).train.inputs, configured(source).train.inputs)
