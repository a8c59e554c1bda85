"""The tutorial: its blocks run, and what they assert holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.pages import ROOT, run_python


def test_the_tutorial_runs(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_python(ROOT / "docs" / "nash-bargaining.md") == 6
