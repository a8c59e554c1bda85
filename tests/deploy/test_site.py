"""The pages as `make docs` lays them out for the site; that builds it, and takes anything that leads nowhere for an error."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.pages import ROOT, pages


@pytest.fixture
def site(tmp_path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("lay_out", ROOT / "docs" / "lay_out.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    found.BUILD, found.PAGES = tmp_path, tmp_path / "site-pages"
    found.lay_out()
    return found


def listed(node: Any) -> list[str]:
    """Every page that the order of pages names."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, dict):
        return [each for value in node.values() for each in listed(value)]
    return [each for value in node for each in listed(value)]


def test_every_page_is_there_and_in_the_order(site: Any, tmp_path: Path) -> None:
    assert {page for page in pages() if page not in site.placed()} == set()
    there = {str(each.relative_to(site.PAGES)) for each in site.PAGES.rglob("*.md")}
    order = listed(yaml.safe_load((tmp_path / "mkdocs.yml").read_text())["nav"])
    assert sorted(order) == sorted(there)


def test_links_lead_from_page_to_page(site: Any) -> None:
    for page in site.PAGES.rglob("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if "://" not in target and not target.startswith(("#", "mailto:")):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_a_link_to_code_is_a_name(site: Any) -> None:
    page = ROOT / "docs" / "operations.md"
    text = site.with_links(
        page, "[a](../Makefile) [`b`](security.md#x) [c](../README.md)\n```\n[d](e)\n```\n", site.placed()
    )
    assert text == "a [`b`](security.md#x) [c](index.md)\n```\n[d](e)\n```\n"
