"""Labels in files: what is written is read as it was, and what people make of it is read or told in a line."""

from __future__ import annotations

import csv
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comity.errors import InvalidValue, MissingFile
from comity.protocols.peer_study.verbs import label_studio, sheets
from comity.protocols.peer_study.verbs.labels import Sample, Task, class_number

CLASSES = ("cat", "dog", "Sea, lion")


def png(value: int) -> bytes:
    file = BytesIO()
    Image.new("L", (3, 2), value).save(file, "PNG")
    return file.getvalue()


def task(kind: str = "image", *, guess: tuple[int, float] | None = None) -> Task:
    shown: dict[str, dict[str, Any]] = {
        "image": {"data": png(7)},
        "text": {"data": 'na\u00efve; "quoted",\nnext'.encode()},
        "table": {"row": (1.5, -2.0)},
    }
    samples = tuple(Sample(name, name * 3, guess=guess, **shown[kind]) for name in ("a-1", "b;2", "\u00e9/3"))
    columns = ("size", "label") if kind == "table" else ()
    return Task("s-1", 2, kind, CLASSES, columns, "Cats purr.", samples)


def filled(folder: Path, labels: list[str], **columns: list[str]) -> list[list[str]]:
    """The table, with labels filled in."""
    with (folder / sheets.FILE).open(encoding="utf-8-sig", newline="") as file:
        header, *rows = [*csv.reader(file)]
    for at, label in enumerate(labels):
        rows[at][header.index("label")] = label
        for name, cells in columns.items():
            rows[at][header.index(name)] = cells[at]
    return [header, *rows]


def saved(path: Path, rows: list[list[str]], separator: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["image", "text", "table"])
def test_what_is_exported_and_filled_in_is_read(tmp_path: Path, kind: str) -> None:
    written = task(kind, guess=(1, 0.75))
    files = sheets.write(written, tmp_path)
    assert all(each.is_file() for each in files)
    rows = filled(
        tmp_path, ["dog", "", "Sea, lion"], skip=["", "yes", ""], unsure=["x", "", ""], comment=["odd", "", ""]
    )
    first = dict(zip(rows[0], rows[1], strict=True))
    assert (first["guess"], first["guess_score"]) == ("dog", "0.750")
    if kind == "image":
        assert (tmp_path / first["file"]).read_bytes() == written.samples[0].data
    elif kind == "text":
        assert first["text"] == written.samples[0].data.decode()
    else:
        assert (first["size"], first["label (column)"]) == ("1.5", "-2")
    assert (tmp_path / "guidelines.txt").read_text() == "Cats purr."
    assert '2,"Sea, lion"' in (tmp_path / "classes.csv").read_text("utf-8-sig")
    said = sheets.read(saved(tmp_path / "filled.csv", rows), CLASSES)
    assert [each["sample"] for each in said] == [each.name for each in written.samples]
    assert said[0] == {"sample": "a-1", "digest": "a-1" * 3, "unsure": True, "comment": "odd", "label": 1}
    assert said[1]["skipped"] is True
    assert said[2]["label"] == 2


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_what_spreadsheets_save_is_read(tmp_path: Path, separator: str, encoding: str) -> None:
    sheets.write(task("text"), tmp_path)
    path = saved(tmp_path / "filled.csv", filled(tmp_path, ["CAT", "dog", "2.0"]), separator, encoding)
    said = sheets.read(path, CLASSES)
    assert [(each["sample"], each["label"]) for each in said] == [("a-1", 0), ("b;2", 1), ("\u00e9/3", 2)]


def test_what_cannot_be_read_is_told_in_a_line(tmp_path: Path) -> None:
    sheets.write(task(), tmp_path)
    rows = filled(tmp_path, ["cat", "cow", ""])
    for wrong, line in (
        (rows, "sample b;2 is no class: expected cat, dog, Sea, lion, received cow"),
        ([*rows[:2], rows[3]], "line 3: the label of sample \u00e9/3 is missing"),
        ([rows[0], rows[1][:-1]], "line 2 has another number of cells"),
        ([[*rows[0][:-1], "label"], rows[1]], "the column 'label' twice"),
        ([["id", "class"], ["a-1", "cat"]], "no table of labels"),
        ([], "no table of labels"),
        ([rows[0], [rows[1][0], "cat", "perhaps", *rows[1][3:]]], "skip cannot be read"),
        ([rows[0], [rows[1][0], "cat", "yes", *rows[1][3:]]], "has a label and is skipped"),
    ):
        path = saved(tmp_path / "wrong.csv", wrong)
        with pytest.raises(InvalidValue) as told:
            sheets.read(path, CLASSES)
        assert line in str(told.value)
        assert "\n" not in str(told.value)
    with pytest.raises(MissingFile):
        sheets.read(tmp_path / "nowhere.csv", CLASSES)
    with pytest.raises(InvalidValue, match="is there already"):
        sheets.write(task(), tmp_path)
    assert [
        each["sample"] for each in sheets.read(saved(tmp_path / "p.csv", [*rows[:2], rows[3]]), CLASSES, partial=True)
    ] == ["a-1"]


def test_classes_that_are_numbers_are_names() -> None:
    assert class_number("7", ("3", "7"), "a") == 1
    assert class_number("7.0", ("3", "7"), "a") == 1
    with pytest.raises(InvalidValue, match="no class"):
        class_number("1", ("3", "7"), "a")
    assert class_number("1", CLASSES, "a") == 1


def exported(annotations: list[Any], **more: Any) -> list[dict[str, Any]]:
    """What Label Studio exports of one task."""
    return [{"id": 5, "data": {"comity_sample": "a-1", "comity_digest": "d"}, "annotations": annotations, **more}]


def chosen(*names: str, by: Any = 1, **more: Any) -> dict[str, Any]:
    result = [{"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": [*names]}}]
    return {"completed_by": by, "created_at": "2026-01-02T03:04:05Z", "was_cancelled": False, "result": result} | more


def test_what_people_said_in_label_studio_is_read_by_annotator(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    unsure = chosen("cat", by={"id": 3, "email": "zoe@example.org"})
    unsure["result"] += [
        {"from_name": "unsure", "to_name": "sample", "type": "choices", "value": {"choices": ["unsure"]}},
        {"from_name": "comment", "to_name": "sample", "type": "textarea", "value": {"text": ["dark", "blurred"]}},
    ]
    skipped = {"completed_by": 2, "was_cancelled": True, "result": []}
    # Predictions come as objects, or as bare numbers.
    path.write_text(json.dumps(exported([unsure, chosen("dog"), skipped], predictions=[12, 13])))
    said = label_studio.read(path, CLASSES)
    assert said == {
        "zoe@example.org": [
            {
                "sample": "a-1",
                "digest": "d",
                "unsure": True,
                "comment": "dark blurred",
                "at": "2026-01-02T03:04:05Z",
                "label": 0,
            }
        ],
        "label-studio-1": [
            {"sample": "a-1", "digest": "d", "unsure": False, "comment": "", "at": "2026-01-02T03:04:05Z", "label": 1}
        ],
        "label-studio-2": [{"sample": "a-1", "digest": "d", "unsure": False, "comment": "", "skipped": True}],
    }
    assert [*label_studio.read(path, CLASSES, "zoe")] == ["zoe"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "no export of Label Studio's: expected a list of tasks in JSON"),
        ('{"a": 1}', "expected a list of tasks, received dict"),
        ('[{"data": {"image": "x"}}]', "none in task 1"),
        ("[7]", "none in task 1"),
        (json.dumps(exported([])), "sample a-1, is not labelled"),
        (json.dumps(exported([17])), "others in task 1"),
        (json.dumps(exported([chosen("cow")])), "is no class"),
        (
            json.dumps(exported([chosen("cat", "dog")])),
            "names no one class: expected one choice of label, received cat, dog",
        ),
        (json.dumps(exported([chosen("cat", result=[])])), "names no one class"),
        (json.dumps(exported([chosen("cat", result=[{"from_name": "label", "value": 3}])])), "a list of results"),
    ],
)
def test_what_is_no_export_is_told_in_a_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(text)
    with pytest.raises(InvalidValue) as told:
        label_studio.read(path, CLASSES)
    assert line in str(told.value)
    assert "\n" not in str(told.value)


def test_tasks_for_label_studio(tmp_path: Path) -> None:
    interface, tasks = label_studio.write(task(guess=(2, 0.5)), tmp_path)
    assert '<Choice value="Sea, lion" hotkey="3"/>' in interface.read_text()
    first = json.loads(tasks.read_text())[0]
    assert first["data"]["comity_sample"] == "a-1"
    assert first["data"]["image"].startswith("data:image/png;base64,")
    (prediction,) = first["predictions"]
    assert (prediction["score"], prediction["result"][0]["value"]) == (0.5, {"choices": ["Sea, lion"]})
    # A file that nobody has labelled is for later, as a whole.
    assert label_studio.read(tasks, CLASSES, partial=True) == {}


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([{"from_name": "label"}], "names no one class"),
        ([{"from_name": "label", "value": {"choices": 5}}], "is no export"),
        ([{"from_name": "label", "value": 5}], "is no export"),
        ([{"from_name": "unsure"}, {"from_name": "comment"}], "names no one class"),
    ],
)
def test_results_of_another_form_are_told_in_a_line(tmp_path: Path, result: list[Any], says: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(exported([{"result": result}])))
    with pytest.raises(InvalidValue, match=says):
        label_studio.read(path, CLASSES)


def test_brackets_without_end_are_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InvalidValue, match="is no export"):
        label_studio.read(path, CLASSES)


def test_long_texts_and_ids_with_spaces_come_back_as_they_were(tmp_path: Path) -> None:
    long = Sample(" a b ", "d", data=b"word " * 60_000)
    limit = csv.field_size_limit()
    sheets.write(Task("s-1", 2, "text", CLASSES, (), "", (long,)), tmp_path)
    text = (tmp_path / sheets.FILE).read_text(encoding="utf-8-sig")
    (tmp_path / sheets.FILE).write_text(text.replace(" a b ,", " a b ,cat"))
    (said,) = sheets.read(tmp_path / sheets.FILE, CLASSES)
    assert (said["sample"], said["label"]) == (" a b ", 0)
    assert csv.field_size_limit() == limit
