"""Labelled sentences in plain files, as numbers of words.

A word's number is a hash of it, the same for every party. A vocabulary would have to be the same for every party too,
and could be made of their sentences alone or of a public list: the first would tell the others which words a party's
sentences hold, the second would have to be fetched and leaves out what is particular to a field. Hashes need neither;
what they cost is that some words share a row of the embedding.

    <dir>/train.tsv, test.tsv         a line a sentence: label, tab, sentence; labels are whole numbers from 0, or names
    <dir>/train/*, <dir>/test/*       a file a class, a line a sentence; classes are numbered in the order of their names
    <dir>/*                           the same without a test split
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from blake3 import blake3

from comity.data.dataset import Dataset, Splits
from comity.data.sources import Request
from comity.errors import InvalidValue, MissingFile
from comity.randomness import derive, generator

WORDS = 56
"""Words kept of a sentence where nothing else is asked for; few in reviews are longer."""
_NUMBERS = 2**24
"""Whole numbers below this are exact in float32."""
_TEST_SHARE = 10
_MOST_CLASSES = 2**16
"""Classes of a contract have names, so many at most; each number up to the highest is a class."""
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
    if (folder / "train.tsv").is_file():
        train, test = _read_lines(folder / "train.tsv"), _read_lines(folder / "test.tsv")
        names = _numbered(train + test) or sorted({label for label, _ in train})
    elif (folder / "train").is_dir() and (folder / "test").is_dir():
        train, test = _read_classes(folder / "train"), _read_classes(folder / "test")
        names = _classes(folder / "train")
    else:
        train, test, names = _read_classes(folder), [], _classes(folder)
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
        return Splits(whole, _dataset(test, names, words))
    return _split(whole, request.seed)


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
    return Dataset(inputs, labels, scale=1.0, classes=len(names))


def _split(whole: Dataset, seed: int) -> Splits:
    test = torch.zeros(len(whole), dtype=torch.bool)
    for label in range(whole.classes):
        members = torch.nonzero(whole.labels == label).flatten()
        order = torch.randperm(len(members), generator=generator(derive(seed, "test sentences", label)))
        test[members[order[: len(members) // _TEST_SHARE]]] = True
    train = whole.select(torch.nonzero(~test).flatten())
    return Splits(train, whole.select(torch.nonzero(test).flatten()) if test.any() else None)


def _read_lines(path: Path) -> Labelled:
    """Sentences of a file in which each line begins with its label; none where there is no file."""
    labelled = []
    for number, line in enumerate(_lines(path) if path.is_file() else (), start=1):
        label, tab, sentence = line.partition("\t")
        if not tab or not label.strip():
            raise InvalidValue(f"{path}, line {number}", expected="label, tab, sentence", received=line[:40])
        labelled.append((label.strip(), sentence))
    return labelled


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
    return [str(label) for label in range(1 + max(map(int, labels), default=-1))]


def _read_classes(folder: Path) -> Labelled:
    return [(name, line) for name in _classes(folder) for line in _lines(folder / name)]


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _lines(path: Path) -> Iterator[str]:
    """Lines that are not empty, in UTF-8, or else in Latin-1, as older sets of sentences are."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    # Not splitlines: it takes characters inside Latin-1 sentences for ends of lines.
    return (line.rstrip("\r") for line in text.split("\n") if line.strip())
