"""Every page: its commands can be typed, its links lead somewhere, and every other page can be reached from it."""

from __future__ import annotations

import re
import shlex
from os.path import relpath
from pathlib import Path
from typing import Any

import pytest
import typer

from comity.cli.main import app
from tests.e2e.pages import ROOT, blocks, commands, headings, links, pages, steps

INDEX = ROOT / "docs" / "README.md"
PAGES = pages()
TYPED = [(page, command) for page in PAGES for command in commands(page)]
PLACEHOLDER = re.compile(r"[…]|\.\.\.|\[[^]]*\]")
"""What stands for words that a reader chooses, or may leave out."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(("page", "command"), TYPED, ids=lambda each: named(each) if isinstance(each, Path) else each)
def test_a_command_can_be_parsed(page: Path, command: str) -> None:
    del page
    words = shlex.split(PLACEHOLDER.sub("", re.split(r"[>&;#]| \|(?=[ ])", command)[0]))[1:]
    group: Any = typer.main.get_command(app)
    if not words or words[0].startswith("--"):
        assert {*words} <= {option for each in group.params for option in each.opts} | {"--help"}
        return
    context = group.make_context("comity", [], resilient_parsing=True)
    at: Any = group
    while words and not words[0].startswith("-") and hasattr(at, "get_command"):
        # `ledger show|verify`, `models`, `data`: one of several.
        word = words[0].partition("|")[0].partition(",")[0].partition("/")[0]
        found = at.get_command(context, word)
        if found is None:
            break
        at, words = found, words[1:]
    assert at is not group, f"no such verb: {command}"
    if hasattr(at, "whole"):
        # A protocol's verb, whose options are its function's.
        at = at.whole()
    options = {option for each in at.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0].rstrip(".,") not in options]
    assert not unknown, f"{command}: no such option"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    known = {"console", "sh", "text", "python", "toml", "proto", "json"}
    assert {each.language for each in blocks(page)} <= known, "say what it is, after the backquotes"
    steps(page)


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("docs/decisions/*.md"))], ids=named)
def test_a_link_leads_somewhere(page: Path) -> None:
    for written, path, heading in links(page):
        assert path.exists(), f"{written}: there is no {path}"
        assert not heading or heading in headings(path), f"{written}: {named(path)} has no such heading"


def test_the_index_names_every_page_once() -> None:
    listed = [path for _, path, _ in links(INDEX)]
    expected = {*PAGES} - {INDEX}
    absent = sorted(map(named, expected - {*listed}))
    assert not absent, f"docs/README.md lists every page; it lacks {', '.join(absent)}"
    assert len(listed) == len({*listed})


@pytest.mark.parametrize("page", [each for each in PAGES if each.parent != ROOT and each != INDEX], ids=named)
def test_a_page_begins_with_the_way_back(page: Path) -> None:
    home, index = (relpath(each, page.parent) for each in (ROOT / "README.md", INDEX))
    expected = f"[Comity]({home}) › [Documentation]({index})"
    assert page.read_text(encoding="utf-8").splitlines()[0] == expected
