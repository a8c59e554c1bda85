"""`docs/add-a-protocol.md`, word for word: its files make a package, and its commands are typed.

The package is made known as an installer does, without an index to install from; all else is typed as it stands. It is done
in a folder of its own, in the page's order.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.e2e.conftest import clean_environment, until
from tests.e2e.pages import missing
from tests.e2e.test_control_port import free_port
from tests.packages.installation import install
from tests.packages.test_size import lines_of_code

PAGE = Path(__file__).parents[2] / "docs" / "add-a-protocol.md"
STEP = re.compile(r"^(?:`(?P<file>[\w./]+)`\n\n)?```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = "5500"
FILES = 8
"""How many the page has one write."""


@dataclass
class Author:
    """Who follows the page.

    Attributes:
        folder: Where everything goes.
        environment: Of all commands.
        stack: What is undone at the end.
        port: The one that is used instead of the page's.
    """

    folder: Path
    environment: dict[str, str]
    stack: ExitStack
    port: str

    def types(self, line: str, shown: list[str]) -> None:
        """Types a command, and looks for what the page shows below it."""
        line = line.replace(PORT, self.port)
        if line == "pip install -e .":
            install(self.folder / "site", [self.folder])
        elif line.endswith(" &"):
            self._starts(line.removesuffix(" &"), shown)
        else:
            ran = subprocess.run(
                line, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
            # What goes to a terminal as one: what is followed live, and then the result.
            assert missing(shown, ran.stderr + ran.stdout) == [], f"{line}\n{ran.stderr}{ran.stdout}"

    def _starts(self, line: str, shown: list[str]) -> None:
        log = self.folder / f"{len(list(self.folder.iterdir()))}.log"
        node = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}"],
            cwd=self.folder,
            env=self.environment,
            stdout=self.stack.enter_context(log.open("w")),
            stderr=subprocess.STDOUT,
        )
        self.stack.callback(node.wait)
        self.stack.callback(node.terminate)
        ready = lambda: node.poll() is not None or missing(shown, log.read_text()) == []  # noqa: E731
        until(ready, line, deadline_s=120)
        assert node.poll() is None, log.read_text()


@pytest.fixture
def author(tmp_path: Path) -> Iterator[Author]:
    paths = [str(tmp_path / "site"), str(tmp_path)]
    environment = clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(paths))
    with ExitStack() as stack:
        yield Author(tmp_path, environment, stack, str(free_port()))


def write(step: re.Match[str], folder: Path) -> Path:
    """Writes a file as it stands in the page."""
    path = folder / step["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(step["body"])
    return path


def test_the_page_is_followed(author: Author) -> None:
    written = []
    for step in STEP.finditer(PAGE.read_text(encoding="utf-8")):
        if step["file"]:
            written.append(write(step, author.folder))
        else:
            assert step["language"] == "console", step[0]
            line, *shown = [each for each in step["body"].splitlines() if each.strip()]
            author.types(line.removeprefix("$ "), shown)
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
    for step in STEP.finditer(PAGE.read_text(encoding="utf-8")):
        if step["file"]:
            write(step, tmp_path)
    ran = [uv, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(tmp_path)]
    built = subprocess.run(ran, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        assert {"median/calls.py", "median/settings.toml", "median/session.toml"} <= set(archive.namelist())
