"""Sentences are read in each layout, the words of all parties get the same numbers, and bad files are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from comity.data import DataConfig, Splits, load, load_data
from comity.data.text import word_number
from comity.errors import InvalidValue, MissingFile


def read(folder: Path, *, seed: int = 0, words: int | None = None) -> Splits:
    return load(f"text:{folder}", root=None, seed=seed, image_size=None, words=words)


def write(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_a_words_number_is_the_same_everywhere() -> None:
    assert [word_number(word) for word in ("good", "bad", "caf\u00e9")] == [3654303, 13663875, 15026407]
    assert all(1 <= word_number(f"w{index}") < 2**24 for index in range(1000))


def test_a_file_a_class(tmp_path: Path) -> None:
    folder = write(tmp_path / "mr", **{"rt.neg": "Bad, bad!\n\nworse .\r\n", "rt.pos": "good\n", ".hidden": "x"})
    splits = read(folder, words=5)
    assert splits.test is None
    assert splits.train.labels.tolist() == [0, 0, 1]
    expected = [["bad", ",", "bad", "!"], ["worse", "."], ["good"]]
    for row, tokens in zip(splits.train.inputs.int().tolist(), expected, strict=True):
        assert row == [word_number(token) for token in tokens] + [0] * (5 - len(tokens))
    assert (splits.train.inputs.dtype, splits.train.scale, splits.train.classes) == (torch.float32, 1.0, 2)
    assert torch.equal(read(folder, words=2).train.inputs, splits.train.inputs[:, :2])
    assert read(folder).train.input_shape == (56,)


def test_a_tenth_of_each_class_is_the_test_split_where_there_is_none(tmp_path: Path) -> None:
    folder = write(
        tmp_path, a="".join(f"a{line}\n" for line in range(40)), b="".join(f"b{line}\n" for line in range(25))
    )
    one, same, other = read(folder), read(folder), read(folder, seed=1)
    assert one.test is not None
    assert same.test is not None
    assert other.test is not None
    assert torch.bincount(one.test.labels).tolist() == [4, 2]
    assert torch.bincount(one.train.labels).tolist() == [36, 23]
    rows = torch.cat((one.train.inputs, one.test.inputs))
    assert len(rows.unique(dim=0)) == 65
    assert torch.equal(one.test.inputs, same.test.inputs)
    assert not torch.equal(one.test.inputs, other.test.inputs)


def test_a_file_a_class_in_two_folders(tmp_path: Path) -> None:
    write(tmp_path / "train", neg="bad\n", neutral="so\nso\n", pos="")
    write(tmp_path / "test", pos="good\n")
    splits = read(tmp_path)
    assert splits.test is not None
    assert (splits.train.labels.tolist(), splits.test.labels.tolist()) == ([0, 1, 1], [2])
    write(tmp_path / "test", other="what\n")
    with pytest.raises(InvalidValue, match="other"):
        read(tmp_path)


def test_lines_with_labels(tmp_path: Path) -> None:
    write(tmp_path, **{"train.tsv": "1\tgood film\n0\tbad\tfilm\n", "test.tsv": "4\tgreat\n"})
    splits = read(tmp_path)
    assert splits.test is not None
    assert (splits.train.labels.tolist(), splits.test.labels.tolist(), splits.train.classes) == ([1, 0], [4], 5)
    assert splits.train.inputs[1, :3].int().tolist() == [word_number("bad"), word_number("film"), 0]
    write(tmp_path, **{"train.tsv": "pos\tgood\nneg\tbad\n", "test.tsv": "pos\tgreat\n"})
    splits = read(tmp_path)
    assert splits.test is not None
    assert (splits.train.labels.tolist(), splits.test.labels.tolist(), splits.train.classes) == ([1, 0], [1], 2)


@pytest.mark.parametrize("line", ["no label", "\tnothing before the tab", " \tnor here"])
def test_a_line_without_a_label_is_refused_by_number(tmp_path: Path, line: str) -> None:
    write(tmp_path, **{"train.tsv": f"1\tgood\n{line}\n"})
    with pytest.raises(InvalidValue, match="line 2"):
        read(tmp_path)


def test_latin_1_is_read_and_ends_no_line_inside_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, neg=b"caf\xe9 and more\x85 indeed\n", pos="caf\u00e9 of utf-8\n")
    splits = read(tmp_path)
    assert splits.train.labels.tolist() == [0, 1]
    assert splits.train.inputs[:, 0].int().tolist() == [15026407, 15026407]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="folder"):
        read(tmp_path / "absent")
    with pytest.raises(InvalidValue, match="no sentence"):
        read(tmp_path)
    with pytest.raises(InvalidValue, match="no sentence"):
        read(write(tmp_path, neg="\n"))
    with pytest.raises(InvalidValue, match="words"):
        read(write(tmp_path, neg="bad\n"), words=0)
    with pytest.raises(InvalidValue, match="only text has words"):
        load("digits", root=None, seed=0, image_size=None, words=3)


def test_a_configuration_says_how_many_words(tmp_path: Path) -> None:
    write(tmp_path, neg="bad\n", pos="good\n")
    assert load_data(DataConfig(source=f"text:{tmp_path}", words=7)).train.input_shape == (7,)


@pytest.mark.data
@pytest.mark.skipif("COMITY_DATA" not in os.environ, reason="COMITY_DATA names no folder")
def test_movie_reviews() -> None:
    splits = read(Path(os.environ["COMITY_DATA"]) / "mr")
    assert splits.test is not None
    assert torch.bincount(torch.cat((splits.train.labels, splits.test.labels))).tolist() == [5331, 5331]
    assert len(splits.test) == 1066


LINES = [(number % 3, f"word{number} good film number {number}") for number in range(30)]
TSV = "".join(f"{label}\t{sentence}\n" for label, sentence in LINES)


def of_file(folder: Path, data: bytes) -> Splits:
    folder.mkdir()
    (folder / "train.tsv").write_bytes(data)
    return load_data(DataConfig(source=f"text:{folder}"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("mark", b"\xef\xbb\xbf" + TSV.encode()),
        ("header", ("label\tsentence\n" + TSV).encode()),
        ("utf-16", TSV.encode("utf-16")),
        ("windows", TSV.replace("\n", "\r\n").encode()),
        ("old mac", TSV.replace("\n", "\r").encode()),
        ("utf-32", TSV.encode("utf-32")),
        ("spaces", "".join(f" {label} \t{sentence}\n" for label, sentence in LINES).encode()),
        ("quotes", "".join(f'"{label}"\t"{sentence}"\n' for label, sentence in LINES).encode()),
    ],
)
def test_sentences_are_the_same_however_they_were_saved(tmp_path: Path, name: str, data: bytes) -> None:
    plain, found = of_file(tmp_path / "plain", TSV.encode()), of_file(tmp_path / name, data)
    assert (found.train.classes, found.train.labels.tolist()) == (3, plain.train.labels.tolist())
    assert torch.equal(found.train.inputs, plain.train.inputs)
    assert bool(found.notes) == (name == "header")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("".join(f"{sentence}\t{label}\n" for label, sentence in LINES), "almost as many labels as lines"),
        (TSV.replace("\t", ";"), "line 1.*semicolons"),
        (TSV.replace("\t", ","), "line 1.*put a tab behind the label"),
        ("".join(f"{sentence}\t{label}\n" for label, sentence in LINES[:6]), "almost as many labels as lines"),
        (
            "".join(f"{label}{'.0' * (number % 2)}\t{each}\n" for number, (label, each) in enumerate(LINES)),
            "one class under two names",
        ),
        ("".join(f"{number}\t{sentence}\n" for number, (_, sentence) in enumerate(LINES)), "record numbers"),
    ],
)
def test_classes_are_not_invented(tmp_path: Path, data: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        of_file(tmp_path / "text", data.encode())


@pytest.mark.parametrize("first", [-1, 1])
def test_numbers_that_do_not_begin_at_nought_are_names(tmp_path: Path, first: int) -> None:
    found = of_file(tmp_path / "text", "".join(f"{label + first}\t{each}\n" for label, each in LINES).encode())
    assert found.train.classes == 3
    assert found.train.meaning.labels == tuple(str(number + first) for number in range(3))


def test_files_that_tell_of_the_data_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "pos.txt").write_bytes(b"good\n" * 20)
    (tmp_path / "neg.txt").write_bytes(b"bad\n" * 20)
    (tmp_path / "README.md").write_bytes(b"about\n")
    (tmp_path / "LICENSE").write_bytes(b"free\n")
    for name in ("Thumbs.db", "desktop.ini", "notes.docx", "AUTHORS", "data.csv"):
        (tmp_path / name).write_bytes(b"about\n")
    (tmp_path / "__MACOSX").mkdir()
    splits = load_data(DataConfig(source=f"text:{tmp_path}"))
    assert splits.train.meaning.labels == ("neg", "pos")
    assert "8 passed over" in splits.notes[0]
    assert "README.md" in splits.notes[0]


def test_a_file_without_a_sentence_is_said_or_refused(tmp_path: Path) -> None:
    (tmp_path / "pos").write_bytes(b"good\n" * 20)
    (tmp_path / "neg").write_bytes(b"")
    splits = load_data(DataConfig(source=f"text:{tmp_path}"))
    assert splits.train.classes == 2
    assert any("no sentence in neg" in note for note in splits.notes)
    (tmp_path / "neg").write_bytes(b"\n\n")
    with pytest.raises(InvalidValue, match="neg holds no sentence"):
        load_data(DataConfig(source=f"text:{tmp_path}"))


def test_a_table_of_sentences_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(TSV.replace("\t", ","))
    with pytest.raises(InvalidValue, match=r"train\.csv is a table.*separated by tabs"):
        load_data(DataConfig(source=f"text:{tmp_path}"))


def test_classes_that_differ_in_capital_letters_alone_are_said(tmp_path: Path) -> None:
    lines = "".join(f"{['pos', 'Pos', 'neg'][label]}\t{sentence}\n" for label, sentence in LINES)
    found = of_file(tmp_path / "text", lines.encode())
    assert found.train.classes == 3
    assert "the classes Pos and pos differ in capital letters alone" in found.notes
