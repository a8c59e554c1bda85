"""Installs the packages beside this file for a test run: what their entry points need, and nothing of the library."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

PACKAGES = tuple(sorted(each.parent for each in Path(__file__).parent.glob("*/pyproject.toml")))
"""Folders of packages, each with a module of its own name."""


def install(folder: Path, packages: Iterable[Path] = PACKAGES) -> None:
    """Writes what an installer writes of packages: their names and their entry points."""
    for package in packages:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = [
            line
            for group, points in project["entry-points"].items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def make_known(folder: Path) -> None:
    """Has this process, and those that it starts, find the packages that are installed in a folder."""
    paths = [str(folder), *map(str, PACKAGES)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path[:0] = paths
