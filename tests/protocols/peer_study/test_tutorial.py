"""The tutorial: its blocks run, and what they assert holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.pages import ROOT, run_python


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_python(ROOT / "docs" / "peer-study.md") == 4
