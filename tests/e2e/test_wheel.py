"""The wheel, installed and used where there is no checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installed:
    """A wheel in an environment of its own.

    Attributes:
        wheel: The wheel.
        environment: The environment's folder.
    """

    wheel: Path
    environment: Path

    def program(self, name: str) -> Path:
        """A program of the environment."""
        return self.environment / "bin" / name


def ran(*arguments: object, cwd: Path) -> str:
    """Runs a program of the packaging tools; what it prints."""
    done = subprocess.run(
        [str(each) for each in arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        # A build fetches its backend; without an index there is none, and nothing is wrong with the project.
        pytest.skip(f"{arguments[0]} cannot {arguments[1]} here: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel of this checkout in an environment that has our dependencies, and not the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    uv = shutil.which("uv")
    if uv is not None:
        ran(uv, "build", "--quiet", "--wheel", "--out-dir", folder, CHECKOUT, cwd=folder)
        (wheel,) = folder.glob("*.whl")
        python = environment / "bin" / "python"
        ran(uv, "pip", "install", "--quiet", "--no-deps", "--offline", "--python", python, wheel, cwd=folder)
    else:
        pip = (sys.executable, "-m", "pip", "--quiet")
        ran(*pip, "wheel", "--no-deps", "--wheel-dir", folder, CHECKOUT, cwd=folder)
        (wheel,) = folder.glob("*.whl")
        ran(*pip, "--python", environment, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # Appended to the path without reading the .pth files there, one of which is the editable install.
    site_packages = next(environment.glob("lib/python*/site-packages"))
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(wheel, environment)


def test_the_wheel_holds_the_library_and_the_daemons_alone(installed: Installed) -> None:
    with ZipFile(installed.wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    ours = {"comity", "learner_node", "provider_node", "client_node", "server_node"}
    assert ours <= tops
    assert all(top.endswith(".dist-info") for top in tops - ours)
    assert "comity/py.typed" in names
    assert "comity/wire/v1/blobs_pb2.pyi" in names
    # What a protocol of another package imports in its .proto.
    assert "comity/protos/comity/wire/v1/egress.proto" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_the_demo_of_the_wheel_is_that_of_the_checkout(
    installed: Installed, the_demo: tuple[Path, dict[str, Any]], comity: Any, short_path: Path
) -> None:
    home, temporary = short_path / "empty", short_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    program = installed.program("python")
    where = comity(
        "-c", "import comity, learner_node; print(comity.__file__, learner_node.__file__)", cwd=home, executable=program
    )
    paths = where.stdout.split()
    assert len(paths) == 2, where.stderr
    assert all(Path(path).is_relative_to(installed.environment) for path in paths)
    result = comity.json("demo", "--seed", 0, cwd=home, executable=installed.program("comity"), TMPDIR=str(temporary))
    assert result["digest"] == the_demo[1]["digest"]
    assert result["metrics"] == the_demo[1]["metrics"]
    assert not list(home.iterdir())
    # Without --workdir the nodes' folders are removed at the end; torch leaves its compiler's cache.
    assert not [each for each in temporary.iterdir() if not each.name.startswith("torchinductor_")]
