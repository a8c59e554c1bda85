"""Labelled sentences in plain files, as numbers of words.

A word's number is a hash of it, the same for every party. A vocabulary would have to be the same for every party too,
and could be made of their sentences alone or of a public list: the first would tell the others which words a party's
sentences hold, the second would have to be fetched and leaves out what is particular to a field. Hashes need neither;
what they cost is that some words share a row of the embedding.

    <dir>/train.tsv, test.tsv         a line a sentence: label, tab, sentence; labels are whole numbers from 0, or names
    <dir>/train/*, <dir>/test/*       a file a class, a line a sentence; classes are numbered in the order of their names,
                                      which are those of the files without .txt
    <dir>/*                           the same without a test split
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from blake3 import blake3

from comity.data.dataset import Dataset, Splits
from comity.data.meaning import Meaning
from comity.data.sources import Request
from comity.data.texts import decoded
from comity.errors import InvalidValue, MissingFile
from comity.randomness import derive, generator

WORDS = 56
"""Words kept of a sentence where nothing else is asked for; few in reviews are longer."""
_NUMBERS = 2**24
"""Whole numbers below this are exact in float32."""
_TEST_SHARE = 10
_MOST_CLASSES = 2**16
"""Classes of a contract have names, so many at most; each number up to the highest is a class."""
_HEADERS = frozenset({"label", "labels", "class", "target", "category", "sentiment", "y"})
"""What the column of labels may be called in a first line."""
_NOT_CLASSES = frozenset(
    [
        ".md",
        ".rst",
        ".htm",
        ".html",
        ".pdf",
        ".doc",
        ".docx",
        ".odt",
        ".rtf",
        ".xls",
        ".xlsx",
        ".ods",
        ".ppt",
        ".pptx",
        ".csv",
        ".parquet",
        ".json",
        ".jsonl",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".cfg",
        ".xml",
        ".bib",
        ".zip",
        ".gz",
        ".bz2",
        ".xz",
        ".7z",
        ".tar",
        ".tgz",
        ".db",
        ".sqlite",
        ".npy",
        ".npz",
        ".pt",
        ".pkl",
        ".py",
        ".r",
        ".sh",
        ".ipynb",
        ".log",
        ".bak",
        ".tmp",
        ".swp",
        ".lnk",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
    ]
)
_ABOUT = frozenset(
    [
        "README",
        "LICENSE",
        "LICENCE",
        "COPYING",
        "COPYRIGHT",
        "NOTICE",
        "CHANGELOG",
        "CHANGES",
        "CITATION",
        "AUTHORS",
        "CONTRIBUTORS",
        "VERSION",
        "MAKEFILE",
    ]
)
"""Files that tell of data."""
_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*')
"""A field as a spreadsheet may write it."""
_TOKEN = re.compile(r"\w+|[^\w\s]")

Labelled = list[tuple[str, str]]
"""Labels and sentences."""


def load(request: Request) -> Splits:
    """float32 `[samples, words]`, numbers of words from 1, and 0 after the end of a sentence.

    Where the files bring no test split, a tenth of each class, drawn by the seed, is one.

    Raises:
        MissingFile: The folder is not there.
        InvalidValue: There is no sentence, a line has no label, or the test split has other classes.
    """
    folder, words = request.path, request.words or WORDS
    if not folder.is_dir():
        raise MissingFile("The folder of sentences", expected="a folder that holds text files", received=folder)
    notes: list[str] = []
    if (folder / "train.tsv").is_file():
        train, test = _read_lines(folder / "train.tsv", notes), _read_lines(folder / "test.tsv", notes)
        names = _numbered(train + test) or sorted({label for label, _ in train})
    elif (folder / "train").is_dir() and (folder / "test").is_dir():
        train, test = _read_classes(folder / "train", notes), _read_classes(folder / "test", notes)
        names = list(_classes(folder / "train"))
    elif (folder / "train.csv").is_file():
        raise InvalidValue(
            f"{folder / 'train.csv'} is a table",
            expected="train.tsv, a tab between label and sentence, or a file for each class",
            received="train.csv",
            action="save it separated by tabs, as train.tsv",
        )
    else:
        train, test, names = _read_classes(folder, notes), [], list(_classes(folder))
    if not train:
        raise InvalidValue(
            f"{folder} holds no sentence", expected="train.tsv, or a file for each class", received="none"
        )
    if surplus := {label for label, _ in test} - set(names):
        raise InvalidValue(
            f"The test split in {folder} has classes that the training split lacks",
            expected=", ".join(names),
            received=", ".join(sorted(surplus)),
        )
    whole = _dataset(train, names, words)
    if test:
        return Splits(whole, _dataset(test, names, words), notes=tuple(notes))
    return replace(_split(whole, request.seed), notes=tuple(notes))


@cache
def word_number(word: str) -> int:
    """A word's number, 1 to 2**24 - 1."""
    return 1 + int.from_bytes(blake3(word.encode()).digest(length=8), "little") % (_NUMBERS - 1)


def _dataset(labelled: Labelled, names: list[str], words: int) -> Dataset:
    places = {name: label for label, name in enumerate(names)}
    inputs = torch.zeros(len(labelled), words)
    for row, (_, sentence) in zip(inputs, labelled, strict=True):
        tokens = _TOKEN.findall(sentence.lower())[:words]
        row[: len(tokens)] = torch.tensor([word_number(token) for token in tokens])
    labels = torch.tensor([places[label] for label, _ in labelled])
    texts = tuple(sentence for _, sentence in labelled)
    return Dataset(inputs, labels, scale=1.0, classes=len(names), meaning=Meaning(labels=tuple(names)), texts=texts)


def _split(whole: Dataset, seed: int) -> Splits:
    test = torch.zeros(len(whole), dtype=torch.bool)
    for label in range(whole.classes):
        members = torch.nonzero(whole.labels == label).flatten()
        order = torch.randperm(len(members), generator=generator(derive(seed, "test sentences", label)))
        test[members[order[: len(members) // _TEST_SHARE]]] = True
    train = whole.select(torch.nonzero(~test).flatten())
    return Splits(train, whole.select(torch.nonzero(test).flatten()) if test.any() else None)


def _read_lines(path: Path, notes: list[str]) -> Labelled:
    """Sentences of a file in which each line begins with its label; none where there is no file."""
    labelled = []
    for number, line in enumerate(_lines(path, notes) if path.is_file() else (), start=1):
        label, tab, sentence = line.partition("\t")
        if not tab or not label.strip():
            hint = "separate them by tabs, not semicolons" if ";" in line else "put a tab behind the label"
            raise InvalidValue(
                f"{path}, line {number}", expected="label, tab, sentence", received=line[:40], action=hint
            )
        labelled.append((label.strip(), sentence))
    if labelled and all(_QUOTED.fullmatch(label) for label, _ in labelled):
        labelled = [(_unquoted(label).strip(), _unquoted(sentence)) for label, sentence in labelled]
    rest = Counter(label for label, _ in labelled[1:])
    if labelled and rest and labelled[0][0] not in rest and labelled[0][0].lower() in _HEADERS:
        notes.append(f"{path.name}: the first line, {labelled[0][0]!r}, is taken for the names of columns")
        del labelled[0]
    if len(rest) > 2 and len(rest) * 2 > len(labelled):
        raise InvalidValue(
            f"{path} has almost as many labels as lines",
            expected="label, tab, sentence, with some labels in all",
            received=f"{len(rest)} labels in {len(labelled)} lines, such as {labelled[0][0][:40]!r}",
            action="put the label first, and leave out record numbers",
        )
    return labelled


def _unquoted(field: str) -> str:
    """A field without the quotes that a spreadsheet put around it."""
    found = _QUOTED.fullmatch(field)
    return field if found is None else found[1].replace('""', '"')


def _numbered(labelled: Labelled) -> list[str]:
    """The classes that the labels number; none where they are names."""
    labels = {label for label, _ in labelled}
    if not all(re.fullmatch("0|[1-9][0-9]*", label) for label in labels):
        return []
    # By its length first: Python refuses to read a number of thousands of digits.
    highest = max(labels, key=lambda label: (len(label), label), default="0")
    if len(highest) > len(str(_MOST_CLASSES)) or int(highest) >= _MOST_CLASSES:
        raise InvalidValue(
            "A label is too high for the number of a class",
            expected=f"0 to {_MOST_CLASSES - 1}",
            received=highest[:40],
            action="number the classes from 0, or give them names",
        )
    if labels and "0" not in labels:
        # Numbers that do not begin at 0 are names.
        return sorted(labels, key=int)
    return [str(label) for label in range(1 + max(map(int, labels), default=-1))]


def _read_classes(folder: Path, notes: list[str]) -> Labelled:
    passed = [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".") and _is_passed(path)]
    if passed:
        notes.append(f"{len(passed)} passed over in {folder.name}: {', '.join(passed)[:200]}")
    found = []
    for name, path in _classes(folder).items():
        lines = list(_lines(path, notes))
        if not lines and path.stat().st_size:
            raise InvalidValue(
                f"{path} holds no sentence",
                expected="a line a sentence, or no byte for a class without any",
                received="empty lines",
                action="remove the file if it is no class",
            )
        if not lines:
            notes.append(f"no sentence in {path.name}")
        found += [(name, line) for line in lines]
    return found


def _classes(folder: Path) -> dict[str, Path]:
    """The file of each class, by its name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or _is_passed(path):
            continue
        name = path.name.removesuffix(".txt")
        if name in found:
            raise InvalidValue(f"{folder} has two files of the class {name}", expected="one", received=path.name)
        found[name] = path
    return dict(sorted(found.items()))


def _is_passed(path: Path) -> bool:
    """Whether it is none of a class: a folder, or what comes with data but holds none of them."""
    return not path.is_file() or path.suffix.lower() in _NOT_CLASSES or path.stem.upper() in _ABOUT


def _lines(path: Path, notes: list[str]) -> Iterator[str]:
    """Lines that are not empty, in the encoding that the file's mark says, in UTF-8, or else in Latin-1."""
    data = path.read_bytes()
    try:
        text = decoded(data, path)
    except InvalidValue:
        if b"\0" in data:
            raise
        # As older sets of sentences are.
        text = decoded(data, path, "latin-1")
        notes.append(f"{path.name} is no UTF-8, and is read as Latin-1")
    # Not splitlines: it takes characters inside Latin-1 sentences for ends of lines.
    return (line for line in text.split("\n") if line.strip())
