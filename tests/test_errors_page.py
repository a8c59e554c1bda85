"""`docs/errors.md` has an entry for every error, in the order of the tree, and says of each what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.errors import ComityError, tree
from comity.transport.status import STATUS

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
ENTRY = re.compile(
    r"^#{2,3} `(?P<name>\w+)`\n\n"
    r"`(?P<status>\w+)` · exit code (?P<code>\d)(?: · a kind of `(?P<parent>\w+)`)?\n\n"
    r"- \*\*Means:\*\* (?P<means>.+)\n"
    r"- \*\*Typical cause:\*\* (?P<cause>.+)\n"
    r"- \*\*Do:\*\* (?P<action>.+)\n",
    re.MULTILINE,
)


def as_drawn(error: type[ComityError] = ComityError) -> Iterator[type[ComityError]]:
    """The tree in the order in which it is drawn, children below their parent."""
    yield error
    for child in error.__subclasses__():
        yield from as_drawn(child)


@pytest.fixture(scope="module")
def entries() -> list[dict[str, str]]:
    return [found.groupdict() for found in ENTRY.finditer(PAGE.read_text(encoding="utf-8"))]


def test_every_error_has_its_entry_in_the_order_of_the_tree(entries: list[dict[str, str]]) -> None:
    headings = re.findall(r"^#{2,} `?(\w+)`?", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [entry["name"] for entry in entries] == [error.reason() for error in as_drawn()]
    assert len(entries) == len(tree())


def test_an_entry_says_what_the_code_does(entries: list[dict[str, str]]) -> None:
    for entry, error in zip(entries, as_drawn(), strict=True):
        (parent,) = error.__bases__
        said = entry["status"], int(entry["code"]), entry["parent"]
        above = parent.reason() if issubclass(parent, ComityError) else None
        assert said == (STATUS[error].name, error.exit_code, above), entry["name"]


def test_no_entry_is_another_again(entries: list[dict[str, str]]) -> None:
    for field in ("means", "action"):
        texts = [entry[field] for entry in entries]
        assert len(set(texts)) == len(texts)


def test_an_entry_says_more_than_the_docstring(entries: list[dict[str, str]]) -> None:
    for entry, error in zip(entries, as_drawn(), strict=True):
        docstring = (error.__doc__ or "").splitlines()[0]
        assert len(entry["action"]) > 20, entry["name"]
        assert docstring not in (entry["cause"], entry["action"]), entry["name"]
