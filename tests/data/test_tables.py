"""Tables: every column is what the node says that it is, and what is not is refused in one line."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pytest
import torch
from pyarrow import parquet
from pydantic import ValidationError

from comity.contract import Preprocessing
from comity.data import DataConfig, Splits, load_data
from comity.errors import InvalidValue, MissingFile, UsageError
from comity.node.holdings import Holdings

TABLE: dict[str, Any] = {"target": "ill", "columns": ["age", "weight"]}
ROWS = "patient,age,weight,sex,ill\na,50,70.5,f,yes\nb,60,80,m,no\nc,55,65,f,no\nd,52,90,m,yes\n"


def read(path: Path, text: str | bytes = ROWS, **table: Any) -> Splits:
    file = path / "rows.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_data(DataConfig.model_validate({"source": f"csv:{file}", "table": TABLE | table}))


def refused(path: Path, said: str, text: str | bytes = ROWS, **table: Any) -> UsageError:
    with pytest.raises(UsageError, match=said) as caught:
        read(path, text, **table)
    assert "\n" not in str(caught.value)
    return caught.value


def test_columns_are_read_by_name_in_the_order_that_is_configured(tmp_path: Path) -> None:
    train = read(tmp_path, columns=["weight", "age"], id="patient").train
    assert train.inputs.tolist() == [[70.5, 50], [80, 60], [65, 55], [90, 52]]
    assert (train.labels.tolist(), train.meaning.labels) == ([1, 0, 0, 1], ("no", "yes"))
    assert (train.meaning.features, train.ids) == (("weight", "age"), ("a", "b", "c", "d"))


def test_categories_become_inputs_of_their_own(tmp_path: Path) -> None:
    train = read(tmp_path, columns=["age", "sex"], categories={"sex": ["m", "f", "x"]}).train
    assert train.meaning.features == ("age", "sex=m", "sex=f", "sex=x")
    assert train.inputs[0].tolist() == [50, 0, 1, 0]
    refused(tmp_path, "none of its categories", columns=["sex"], categories={"sex": ["m", "x"]})


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + ROWS.encode(),
        ROWS.encode("utf-16"),
        ROWS.replace("\n", "\r\n").encode(),
        ROWS.replace("\n", "\r").encode(),
        ROWS.replace(",", ";").encode(),
        ROWS.replace(",", "\t").encode(),
        (ROWS + "\n\n").encode(),
    ],
)
def test_a_table_is_the_same_however_it_was_saved(tmp_path: Path, text: bytes) -> None:
    assert torch.equal(read(tmp_path, text).train.inputs, read(tmp_path).train.inputs)


def test_decimal_commas(tmp_path: Path) -> None:
    text = ROWS.replace(",", ";").replace("70.5", "1.070,5")
    assert read(tmp_path, text, decimal=",").train.inputs[0].tolist() == [50, 1070.5]
    error = refused(tmp_path, "row 2: weight is no number", ROWS.replace(",", ";").replace("70.5", "70,5"))
    assert 'decimal = ","' in error.action
    # What stands before three digits alone is taken for what stands between thousands: 70.5 is not 705.
    error = refused(tmp_path, "row 2: weight is no number", ROWS.replace(",", ";"), decimal=",")
    assert 'decimal = "."' in error.action
    text = ROWS.replace("70.5", '"1,070.5"')
    assert read(tmp_path, text).train.inputs[0].tolist() == [50, 1070.5]


def test_another_encoding_is_named(tmp_path: Path) -> None:
    text = ROWS.replace("yes", "schön").encode("latin-1")
    assert "encoding" in refused(tmp_path, "no text in utf-8", text).action
    assert read(tmp_path, text, encoding="latin-1").train.meaning.labels == ("no", "schön")


def test_missing_values_are_filled_as_it_is_said_and_counted(tmp_path: Path) -> None:
    text = ROWS.replace("70.5", "").replace(",80,", ",NA,")
    error = refused(tmp_path, "row 2: weight is missing", text)
    assert "1 more" in str(error.received)
    splits = read(tmp_path, text, fill={"weight": 75.0})
    assert splits.train.inputs[:2, 1].tolist() == [75, 75]
    assert splits.notes == ("2 missing values of weight are 75.0",)
    emptied = "age,weight,ill\n1,,yes\n2,,no\n"
    refused(tmp_path, "weight is missing in all rows", emptied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "illness"}, "no column 'illness'.*patient, age"),
        ({"columns": ["age", "height"]}, "no column 'height'"),
        ({"columns": ["sex"]}, "row 2: sex is no number.*categories.sex"),
        ({"target": "patient"}, "almost as many values as there are rows"),
        ({"id": "sex"}, "row 4: the id sex cannot be used"),
        ({"protected": "sex"}, "row 2: sex is no mark"),
    ],
)
def test_a_column_that_is_something_else_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    refused(tmp_path, said, **change)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no row"),
        ("age,weight,ill\n", "holds no row"),
        ("age,weight,ill\n1,2\n", "row 2 has another number of cells"),
        ("age,age,weight,ill\n1,1,2,a\n", "the column 'age' twice"),
        ("age,weight,ill\n1,2,1\n2,3,no\n3,4,1\n4,5,no\n", "a number in some rows and a text in others"),
        ("age,weight,ill\n1,2,\n2,3,no\n", "row 2: ill says no class"),
        ("age,weight,ill\ninf,2,a\n2,3,b\n", "row 2: age is no number"),
        ("age,weight,ill\n1_0,2,a\n2,3,b\n", "row 2: age is no number"),
        ("age;weight,ill\n1;2,a\n", "cannot be told what stands between"),
        ('age,weight,ill\n"1,2,a\n', "cannot be read"),
        (b"age,weight,ill\n\x00\x00", "zero bytes"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    refused(tmp_path, said, text)


def test_classes_that_are_numbers_stay_so(tmp_path: Path) -> None:
    rows = "age,weight,ill\n1,2,2\n2,3,0\n3,4,2.0\n4,5,0\n"
    train = read(tmp_path, rows).train
    # One that a party lacks keeps its number.
    assert (train.classes, train.labels.tolist()) == (3, [2, 0, 2, 0])
    from_one = read(tmp_path, rows.replace(",0\n", ",1\n")).train
    assert (from_one.meaning.labels, from_one.labels.tolist()) == (("1", "2"), [1, 0, 1, 0])


def test_what_is_protected_is_marked_by_a_column(tmp_path: Path) -> None:
    rows = "age,weight,ill,kept\n1,2,a,Yes\n2,3,b,no\n3,4,a,\n4,5,b,1\n"
    marks = read(tmp_path, rows, protected="kept").train.protected
    assert marks is not None
    assert marks.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    "table",
    [
        TABLE | {"columns": ["age", "age"]},
        TABLE | {"columns": ["age", "ill"]},
        TABLE | {"fill": {"height": 1.0}},
        TABLE | {"categories": {"sex": ["f", "m"]}},
        TABLE | {"units": ["kg"]},
        TABLE | {"separator": ";;"},
        {"columns": ["age"]},
    ],
)
def test_a_table_described_wrongly_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate({"source": "csv:rows.csv", "table": table})


def test_a_table_says_what_its_columns_are_and_others_have_none(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    with pytest.raises(InvalidValue, match=r"\[data.table\] is missing.*comity init"):
        load_data(DataConfig(source=f"csv:{tmp_path / 'rows.csv'}"))
    with pytest.raises(InvalidValue, match="table is not for 'digits'"):
        load_data(DataConfig.model_validate({"source": "digits", "table": TABLE}))
    with pytest.raises(MissingFile):
        load_data(DataConfig.model_validate({"source": "csv:none.csv", "table": TABLE}))


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "age": [50, 60, 55, 52],
        "weight": [70.5, None, 65.0, 90.0],
        "ill": ["yes", "no", "no", "yes"],
        "unused": [[1], [2], [3], [4]],
    }
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    values = {"source": f"parquet:{tmp_path / 'rows.parquet'}", "table": TABLE | {"fill": {"weight": 80.0}}}
    found = load_data(DataConfig.model_validate(values)).train
    assert torch.equal(found.inputs, read(tmp_path).train.inputs)
    # A pool that is not labelled has no column for it.
    parquet.write_table(pa.table({"age": [40], "weight": [60.0]}), tmp_path / "pool.parquet")
    pool = {"pool": {"source": f"parquet:{tmp_path / 'pool.parquet'}", "labelled": False}}
    apart = load_data(DataConfig.model_validate(values | {"splits": pool})).split("pool")
    assert (apart.inputs.tolist(), apart.labels.tolist()) == ([[40.0, 60.0]], [-1])
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(InvalidValue, match="no table that can be read"):
        load_data(DataConfig.model_validate(values))


def test_numbers_have_names_units_and_a_scale(tmp_path: Path) -> None:
    table = {"columns": ["age"], "target": ["weight", "age2"], "kind": "numbers", "units": ["kg", "years"]}
    rows = ROWS.replace("sex", "age2").replace(",f,", ",1,").replace(",m,", ",2,")
    train = read(tmp_path, rows, **table, target_mean=[70, 1], target_std=[10, 2]).train
    assert (train.task, train.classes, train.labels.dtype) == ("regression", 2, torch.float32)
    assert train.labels.tolist() == [[70.5, 1], [80, 2], [65, 1], [90, 2]]
    (head,) = Holdings("clinic", Splits(train)).task_spec(Preprocessing()).heads
    assert (head.size, head.labels, head.units) == (2, ("weight", "age2"), ("kg", "years"))
    assert (head.mean, head.std) == ((70, 1), (10, 2))
    with pytest.raises(InvalidValue, match="for samples with classes"):
        load_data(
            DataConfig.model_validate(
                {"source": f"csv:{tmp_path / 'rows.csv'}", "table": TABLE | table, "classes": ["a", "b"]}
            )
        )


def test_a_row_has_any_of_several_labels(tmp_path: Path) -> None:
    rows = "age,weight,tired,ill\n50,70,yes,yes\n60,80,0,1\n55,65,,no\n"
    table = {"target": ["ill", "tired"], "kind": "labels"}
    train = read(tmp_path, rows, **table).train
    assert (train.task, train.labels.tolist()) == ("multilabel", [[True, True], [True, False], [False, False]])
    (head,) = Holdings("clinic", Splits(train)).task_spec(Preprocessing()).heads
    assert (head.size, head.labels) == (2, ("ill", "tired"))
    refused(tmp_path, "row 3: tired is no mark", rows.replace("80,0", "80,a little"), **table)
    with pytest.raises(ValidationError, match="labels have no units"):
        DataConfig.model_validate({"source": "csv:a.csv", "table": TABLE | table | {"units": ["kg", "kg"]}})
    with pytest.raises(ValidationError, match="classes have one column"):
        DataConfig.model_validate({"source": "csv:a.csv", "table": TABLE | {"target": ["ill", "tired"]}})


def test_classes_are_brought_into_the_agreed_order_and_names(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    values: dict[str, Any] = {"source": f"csv:{tmp_path / 'rows.csv'}", "table": TABLE}
    listed = load_data(DataConfig.model_validate(values | {"classes": ["yes", "no", "unknown"]})).train
    assert (listed.classes, listed.labels.tolist()) == (3, [0, 1, 1, 0])
    mapped = load_data(DataConfig.model_validate(values | {"classes": {"yes": "malignant", "no": "benign"}})).train
    assert (mapped.meaning.labels, mapped.labels.tolist()) == (("malignant", "benign"), [0, 1, 1, 0])
    with pytest.raises(InvalidValue, match="classes lacks the class 'no'"):
        load_data(DataConfig.model_validate(values | {"classes": ["yes", "No"]}))


def test_names_are_the_same_whatever_system_wrote_them(tmp_path: Path) -> None:
    # As macOS puts accents apart; with a space that does not break, and one that cannot be seen.
    rows = "größe,farbe,art\n1,grün,gut\n2,rot,böse\n3,grün,gut\n4,rot,böse\n"
    apart = unicodedata.normalize("NFD", rows).replace("art", "\u200bart").replace("gut", "gut\u00a0")
    table = {"target": "art", "columns": ["größe", "farbe"], "categories": {"farbe": ["grün", "rot"]}}
    other = {"target": "art", "columns": [unicodedata.normalize("NFD", "größe"), "farbe"]}
    other["categories"] = {"farbe": [unicodedata.normalize("NFD", "grün"), "rot"]}
    found = []
    for name, text, said in (("plain", rows, table), ("apart", apart, table), ("both", apart, other)):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        found.append(
            load_data(DataConfig.model_validate({"source": f"csv:{tmp_path / name}.csv", "table": said})).train
        )
    for each in found[1:]:
        assert each.meaning == found[0].meaning
        assert torch.equal(each.inputs, found[0].inputs)
        assert torch.equal(each.labels, found[0].labels)


def test_a_parquet_column_that_is_there_twice_is_refused_as_one_of_csv_is(tmp_path: Path) -> None:
    columns = {"age": [50, 60], "age ": [1, 2], "weight": [70.5, 80.0], "ill": ["yes", "no"]}
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(InvalidValue, match="'age' twice"):
        load_data(DataConfig.model_validate({"source": f"parquet:{tmp_path / 'rows.parquet'}", "table": TABLE}))
    refused(tmp_path, "'age' twice", ROWS.replace("patient,", "age ,"))
