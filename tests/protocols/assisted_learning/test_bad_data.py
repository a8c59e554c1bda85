"""Data and terms that cannot lead anywhere: one line before the first round, and nothing is charged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comity.errors import ComityError
from comity.ledger.charges import charges_of
from comity.ledger.ledger import bytes_by_kind
from comity.node.party import LocalParty
from comity.node.sessions.script import Script, parse_script
from comity.simulation.in_process import parties, simulate_with

SCRIPT = """
[session]
protocol = "assisted_learning"
id = "case"
acceptors = ["hospital"]
rounds = 2
{session}
[session.model]
name = "mlp"
options = {{ hidden = 4 }}
[session.terms]
optimizer = "adam"
learning_rate = 0.01
batch_size = 16
iterations = 20
sampling_period = {period}
[party.clinic]
role = "learner"
privacy = {{ preset = "public" }}
[party.clinic.data]
{clinic}
[party.hospital]
role = "provider"
privacy = {{ preset = "public" }}
[party.hospital.data]
{hospital}
"""
COMPUTED = 'normalization = "computed"'
TERNARY = ("yes", "no", "no")
Make = Callable[[Path], str]


def table(label: Callable[[int], object] = lambda row: TERNARY[row % 3], *, weight: object = None, **more: str) -> Make:
    """A table of 40 rows with an age, a weight and a label."""

    def make(folder: Path) -> str:
        weights = [f"{50 + row % 17}.5" if weight is None else weight for row in range(40)]
        rows = [f"{row % 23},{each},{label(row)}" for row, each in enumerate(weights)]
        (folder / "rows.csv").write_text("\n".join(["age,weight,ill", *rows]))
        settings = "".join(f"table.{name} = {value}\n" for name, value in more.items() if name != "classes")
        classes = f"classes = {more['classes']}\n" if "classes" in more else ""
        columns = 'table.target = "ill"\ntable.columns = ["age", "weight"]\n'
        return f'source = "csv:{folder}/rows.csv"\n{classes}{columns}{settings}'

    return make


def arrays(labels: list[Any], **more: object) -> Make:
    """60 rows of three numbers, with labels, or none without."""

    def make(folder: Path) -> str:
        draws = np.random.default_rng(0).normal(size=(60 if len(labels) else 0, 3)).astype(np.float32)
        np.savez(folder / "all.npz", x=draws, y=np.resize(np.array(labels), len(draws)), **more)  # type: ignore[arg-type]
        return f'source = "npz:{folder}/all.npz"'

    return make


def pictures(classes: str, size: int = 8, last: int | None = None) -> Make:
    """A folder a class with pictures of a size, those of the last class of another where it is given."""

    def make(folder: Path) -> str:
        for name in classes:
            (folder / "pictures" / name).mkdir(parents=True)
            side = last if last is not None and name == classes[-1] else size
            for number in range(12):
                pixels = np.full((side, side, 3), number * 20, np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
        (folder / "pictures").mkdir(exist_ok=True)
        return f'source = "imagefolder:{folder}/pictures"'

    return make


def sentences(folder: Path) -> str:
    """Labels that are words to train on and numbers to test with."""
    for split, names in (("train", ("good", "bad")), ("test", ("1", "0"))):
        (folder / f"{split}.tsv").write_text("".join(f"{names[line % 2]}\tfilm {line}\n" for line in range(40)))
    return f'source = "text:{folder}"'


def begun(
    root: Path, clinic: Make, hospital: Make, **more: object
) -> tuple[Script, list[LocalParty], list[LocalParty]]:
    folders = {"clinic": root / "clinic", "hospital": root / "hospital"}
    for each in folders.values():
        each.mkdir()
    made = {"clinic": clinic(folders["clinic"]), "hospital": hospital(folders["hospital"])}
    script = parse_script(SCRIPT.format(**{"session": "", "period": 5} | made | more))
    return script, *parties(script)


CASES: Mapping[str, tuple[Make, Make, str]] = {
    "one class": (
        table(lambda _: "yes"),
        table(lambda _: "yes"),
        r"too few classes.* received yes; .*classes = \[\.\.\.\]",
    ),
    "one class at one party": (
        table(),
        table(lambda _: "yes"),
        r'class 0 is "yes" at hospital .*classes = \["no", "yes"\]',
    ),
    "one folder": (pictures("ab"), pictures("a"), r'class 1 is none at hospital and "b".*classes = \["a", "b"\]'),
    "no class": (table(lambda _: ""), table(), r"row 2: ill says no class"),
    "no folder": (pictures("ab"), pictures(""), "no folder: expected one folder a class"),
    "no sample": (arrays([0, 1]), arrays([], classes=2), "no sample"),
    "labels from 1": (arrays([1, 2]), arrays([1, 2]), "labels from 1 on: .*numbered from 0, received 1 to 2"),
    "labels from 1 at one party": (arrays([0, 1]), arrays([1, 2]), "labels from 1 on"),
    "numbers from 1 at one party": (
        table(lambda row: row % 2 + 1),
        table(lambda row: row % 2),
        'class 0 is "1" in the contract',
    ),
    "labels below 0": (arrays([0, 1]), arrays([-1, 1]), "number the classes from 0"),
    "texts and numbers at two parties": (
        table(),
        table(lambda row: row % 2),
        'class 0 is "no" in the contract and has no name',
    ),
    "texts and numbers in a column": (
        table(lambda row: ("yes", "no", 0)[row % 3]),
        table(),
        "a number in some rows and a text",
    ),
    "texts and numbers in two files": (sentences, sentences, "expected bad, good, received 0, 1"),
    "texts in an array": (arrays([0, 1]), arrays(["a", "b"]), "expected numbers"),
    "more classes at one party": (
        pictures("ab"),
        pictures("abc"),
        'class 2 is "c" at hospital and none in the contract',
    ),
    "another size": (pictures("ab"), pictures("ab", 10), "3×8×8 inputs .* 3×10×10 inputs"),
    "another size within": (pictures("ab"), pictures("ab", last=9), "expected 8x8, received 9x9; set `image_size`"),
    "all missing": (table(), table(weight=""), "weight is missing in all rows"),
}


def refused(script: Script, asking: list[LocalParty], helping: list[LocalParty], message: str) -> None:
    with pytest.raises(ComityError, match=message) as caught:
        simulate_with(script, asking, helping)
    assert "\n" not in str(caught.value)
    for party in (*asking, *helping):
        entries = list(party.store.entries())
        assert not charges_of(entries)
        assert {*bytes_by_kind(entries, "sent"), *bytes_by_kind(entries, "received")} <= {"contract"}


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line_before_the_first_round(tmp_path: Path, case: str) -> None:
    clinic, hospital, message = CASES[case]
    refused(*begun(tmp_path, clinic, hospital), message)


def test_a_column_that_is_the_same_everywhere_has_no_scale(tmp_path: Path) -> None:
    refused(*begun(tmp_path, table(weight=70.0), table(), session=COMPUTED), "weight is the same in all samples")


@pytest.mark.parametrize(("period", "message"), [(21, "at most 19"), (12, "nothing would be trained: .*below 10")])
def test_a_period_longer_than_the_training_buys_nothing(tmp_path: Path, period: int, message: str) -> None:
    refused(*begun(tmp_path, table(), table(), period=period), message)


ALLOWED: Mapping[str, tuple[Make, Make, str]] = {
    "a class that one party lacks": (
        table(),
        table(lambda _: "yes", classes='["no", "yes"]'),
        "no sample to train on of no",
    ),
    "a class that comes first": (arrays([0, 1]), arrays([1], classes=2), "no sample to train on of 0"),
    "a column that is the same at one party": (
        table(),
        table(weight=70.0),
        "weight: the same in all samples to train on",
    ),
    "a column that was filled": (table(), table(weight="", fill="{ weight = 70.0 }"), "weight"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_a_party_may_lack_is_said(tmp_path: Path, case: str) -> None:
    clinic, hospital, note = ALLOWED[case]
    script, asking, helping = begun(tmp_path, clinic, hospital)
    result: Any = simulate_with(script, asking, helping)[0]
    assert (result.rounds, result.ledger_verified) == (2, True)
    assert any(note in each for each in helping[0].holdings.notes)
    assert asking[0].holdings.notes == ()
