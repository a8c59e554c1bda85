"""`docs/add-a-protocol.md`, word for word: its files make a package, and its commands are typed.

The package is made known as an installer does, without an index to install from; all else is typed as it stands. It is done
in a folder of its own, in the page's order.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.e2e.pages import PATIENCE_S, ROOT, Follower, steps
from tests.e2e.test_control_port import free_port
from tests.packages.installation import install
from tests.packages.test_size import lines_of_code

STEPS = steps(ROOT / "docs" / "add-a-protocol.md")
PORT = "5500"
FILES = 8
"""How many the page has one write."""


@pytest.mark.timeout(2 * PATIENCE_S)
def test_the_page_is_followed(short_path: Path) -> None:
    paths = os.pathsep.join([str(short_path / "site"), str(short_path)])
    port = str(free_port())
    with ExitStack() as stack:
        author = Follower({"": short_path}, stack, PYTHONPATH=paths)
        for step in STEPS:
            if step.line == "pip install -e .":
                install(short_path / "site", [short_path])
            else:
                author.take(replace(step, line=step.line.replace(PORT, port)))
    written = [short_path / step.file for step in STEPS if step.file]
    assert len(written) == FILES
    code = {each.name: lines_of_code(each.read_text()) for each in written if each.suffix == ".py"}
    assert sum(code.values()) <= 200, code


def test_the_package_can_be_built(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if (
        uv is None
        or subprocess.run([uv, "tool", "run", "hatchling", "--help"], stdout=subprocess.DEVNULL, check=False).returncode
    ):
        pytest.skip("there is nothing to build a package with")
    with ExitStack() as stack:
        author = Follower({"": tmp_path}, stack)
        for step in STEPS:
            if step.file:
                author.take(step)
    ran = [uv, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(tmp_path)]
    built = subprocess.run(ran, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        assert {"median/calls.py", "median/settings.toml", "median/session.toml"} <= set(archive.namelist())
