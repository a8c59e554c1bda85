"""Samples in a folder of files, and labels in a table: for a spreadsheet."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from comity.contract import Json
from comity.data.texts import decoded
from comity.errors import InvalidValue, MissingFile, StorageFailed
from comity.protocols.peer_study.annotation.masks import indexed, pixels
from comity.protocols.peer_study.choices import IGNORED
from comity.protocols.peer_study.verbs.labels import Sample, Task, class_number

FILE = "labels.csv"
_SAMPLE, _LABEL, _SKIP, _UNSURE, _COMMENT, _DIGEST = "sample", "label", "skip", "unsure", "comment", "digest"
_GUESS, _SCORE, _FILE, _TEXT, _MASK = "guess", "guess_score", "file", "text", "mask"
_SEPARATORS = ",;\t"
_YES, _NO = frozenset({"1", "yes", "y", "true", "x"}), frozenset({"", "0", "no", "n", "false"})
_OTHER_ENCODING = "cp1252"
"""What spreadsheets of western Europe write that do not write UTF-8."""


def write(task: Task, folder: Path) -> list[Path]:
    """Writes what is to be labelled; returns the files.

    `labels.csv` has a line a sample, to be filled in, with texts as they are, rows as columns, and the names of pictures, which
    are PNG files. Where masks are asked for there is an indexed PNG for each picture, to be drawn on: what the model takes it
    for, or nothing yet. The classes, and what people are told, are in files of their own.

    Raises:
        StorageFailed: They cannot be written.
        InvalidValue: The folder holds labels already.
    """
    table = folder / FILE
    if table.exists():
        raise InvalidValue(
            f"{table} is there already",
            expected="an empty folder, or a new one",
            received="labels that somebody may have filled in",
            action="name another folder",
        )
    guessed = [_GUESS, _SCORE] if any(each.guess is not None for each in task.samples) else []
    shown = {"image": [_FILE], "text": [_TEXT]}.get(task.kind, [*task.columns])
    if task.mask_size is not None:
        shown = [_FILE, _MASK]
    # What people fill in has its name once, whatever a table's columns are called.
    own = {_SAMPLE, _LABEL, _SKIP, _UNSURE, _COMMENT, _DIGEST, _GUESS, _SCORE}
    names = [f"{each} (column)" if task.kind == "table" and each in own else each for each in shown]
    lines = [[_SAMPLE, _LABEL, _SKIP, _UNSURE, _COMMENT, *guessed, *names, _DIGEST]]
    files = {}
    for number, sample in enumerate(task.samples, start=1):
        guess = []
        if sample.guess is not None:
            label, score = sample.guess
            guess = ["" if isinstance(label, str) else task.classes[label], f"{score:.3f}"]
        if task.kind == "image":
            name = f"images/{number:05d}.png"
            files[name] = sample.data
            cells = [name]
            if task.mask_size is not None:
                cells.append(f"masks/{number:05d}.png")
                files[cells[-1]] = _begun(sample, task.mask_size)
        elif task.kind == "text":
            cells = [sample.data.decode()]
        else:
            cells = [f"{each:.9g}" for each in sample.row]
        lines.append([sample.name, "", "", "", "", *guess, *cells, sample.digest])
    files["classes.csv"] = _table([["number", "class"], *([str(at), name] for at, name in enumerate(task.classes))])
    if task.guidelines:
        files["guidelines.txt"] = task.guidelines.encode()
    # Last, so that whoever sees it has the rest.
    files[FILE] = _table(lines)
    return written(folder, files)


def written(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Writes files into a folder; returns them.

    Raises:
        StorageFailed: They cannot be written.
    """
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be written to",
            expected="a folder with room",
            received=error.strerror or str(error),
            action="name another",
        ) from error
    return [folder / name for name in files]


def _table(lines: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    # With a mark, by which spreadsheets know that it is UTF-8.
    return text.getvalue().encode("utf-8-sig")


def _begun(sample: Sample, size: tuple[int, int]) -> bytes:
    """A mask to be drawn on."""
    guess = None if sample.guess is None else sample.guess[0]
    return indexed(pixels(guess) if isinstance(guess, str) else np.full(size, IGNORED, dtype=np.uint8))


def _mask_in(path: Path, number: int) -> str:
    if not path.is_file():
        raise MissingFile(
            f"line {number} names a mask that is not there",
            expected="the name of a PNG file, from the table's folder on",
            received=path,
            action="correct label",
        )
    return base64.b64encode(path.read_bytes()).decode()


def read(path: Path, classes: Sequence[str], *, partial: bool = False, masks: bool = False) -> list[dict[str, Json]]:
    """What somebody filled in.

    Args:
        path: The table: separated by commas, semicolons or tabs; in UTF-8, UTF-16 or Windows-1252.
        classes: Names of the classes, in order.
        partial: Whether lines without a label are for later, and not a mistake.
        masks: Whether labels are names of PNG files.

    Raises:
        MissingFile: There is none, or no such mask.
        InvalidValue: It cannot be read, or a line says something that there is not.
    """
    text = _text(path)
    # A text of the pool may be longer than csv takes a cell to be.
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(path), strict=True)
        header, *rows = [row for row in lines if any(cell.strip() for cell in row)]
    except (csv.Error, ValueError) as error:
        raise InvalidValue(
            f"{path} cannot be read",
            expected="a line of names, and a line a sample",
            received=f"{error}"[:100],
            action="save it as CSV",
        ) from error
    finally:
        csv.field_size_limit(limit)
    names = [cell.strip().lower() for cell in header]
    said: list[dict[str, Json]] = []
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise InvalidValue(
                f"{path}, line {number} has another number of cells than there are columns",
                expected=len(names),
                received=len(row),
                action="correct the line",
            )
        cells = dict(zip(names, (cell.strip() for cell in row), strict=True))
        # An id is what it is, with spaces around it too.
        sample, label = row[names.index(_SAMPLE)], cells[_LABEL]
        skipped = _is_yes(cells, _SKIP, path, number)
        if label and skipped:
            raise InvalidValue(
                f"{path}, line {number}: sample {sample[:100]} has a label and is skipped",
                expected="one of the two",
                received=f"{label[:50]}, and yes under skip",
                action="remove one of them",
            )
        if not label and not skipped:
            if partial:
                continue
            raise InvalidValue(
                f"{path}, line {number}: the label of sample {sample[:100]} is missing",
                expected="a class, or yes under skip",
                received="nothing",
                action="fill it in, or leave such lines for later with --partial",
            )
        said_of_it: dict[str, Json] = {"skipped": True}
        if not skipped:
            said_of_it = {
                "label": _mask_in(path.parent / label, number) if masks else class_number(label, classes, sample)
            }
        one: dict[str, Json] = {
            "sample": sample,
            "unsure": _is_yes(cells, _UNSURE, path, number),
            "comment": cells.get(_COMMENT, ""),
            **said_of_it,
        }
        if cells.get(_DIGEST):
            one["digest"] = cells[_DIGEST]
        said.append(one)
    return said


def _text(path: Path) -> str:
    if not path.is_file():
        raise MissingFile("the labels are not there", expected="a file", received=path, action="name it")
    data = path.read_bytes()
    try:
        return decoded(data, path)
    except InvalidValue:
        return decoded(data, path, _OTHER_ENCODING)


def _separator(path: Path) -> str:
    """What stands between the names in the first line."""
    first = next((line for line in _text(path).split("\n") if line.strip()), "")
    for each in _SEPARATORS:
        try:
            names = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=each))]
        except (csv.Error, StopIteration):
            continue
        if _SAMPLE in names and _LABEL in names:
            if len(set(names)) == len(names):
                return each
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidValue(f"{path} has the column {twice!r} twice", expected="each once", received="two")
    raise InvalidValue(
        f"{path} is no table of labels",
        expected="a first line with sample and label, separated by commas, semicolons or tabs",
        received=first[:100] or "nothing",
        action="fill in the labels.csv that comity annotate export wrote",
    )


def _is_yes(cells: Mapping[str, str], name: str, path: Path, number: int) -> bool:
    said = cells.get(name, "").lower()
    if said in _YES or said in _NO:
        return said in _YES
    raise InvalidValue(
        f"{path}, line {number}: {name} cannot be read",
        expected="yes, or nothing",
        received=said[:50],
        action="correct it",
    )
