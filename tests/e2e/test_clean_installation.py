"""The README on a machine that has nothing: installed into an environment of its own, with a home that is empty."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import clean_environment
from tests.e2e.pages import ROOT, Follower, Step
from tests.e2e.test_readme import PLACE, make_scans, side

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """Where the command is; of the versions that the lock has, which are at hand already."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("there is no uv")
    # On the disk of the other environment: where temporary files are in memory, this would take 5 GB of it.
    folder = ROOT / "build" / "clean-installation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    locked = ["export", "--quiet", "--frozen", "--no-emit-project", "--no-hashes", "--extra", "report"]
    constraints = folder / "constraints.txt"
    constraints.write_text(subprocess.run([uv, *locked], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "environment"], check=True)
    place = ["--quiet", "--python", str(folder / "environment"), "--constraint", str(constraints)]
    subprocess.run([uv, "pip", "install", *place, ".[report]"], cwd=ROOT, check=True)
    yield folder / "environment" / "bin"
    shutil.rmtree(folder)


def test_a_new_user_comes_to_the_demo_a_session_of_two_nodes_and_a_report(installed: Path, short_path: Path) -> None:
    empty = short_path / "home"
    empty.mkdir()
    own = {"PATH": f"{installed}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(empty), "MPLBACKEND": "agg"}
    own |= {"OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(short_path / "matplotlib")}

    def typed(*words: str, cwd: Path) -> str:
        environment = clean_environment(**own)
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert typed("sh", "-c", "command -v comity", cwd=short_path).strip() == str(installed / "comity")
    assert "digest" in json.loads(typed("comity", "demo", "--json", cwd=short_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    home = {party: short_path / party for party in ("hospital", "clinic")}
    for party, folder in home.items():
        folder.mkdir()
        make_scans(folder / "scans", seed=len(party))
    (provider, *provider_on), (learner, *learner_on, run) = side("provider", "hospital"), side("learner", "clinic")
    provider.line += f" --listen {address}"
    learner.line = learner.line.replace(PLACE, address)
    with ExitStack() as stack:
        operators = Follower(home, stack, **{key: value for key, value in own.items() if key != "OMP_NUM_THREADS"})
        steps: list[Step] = [provider, learner, *provider_on, *learner_on]
        for step in steps:
            step.shown += ["…node-ready…"] if step.goes_on else []
            operators.take(step)
        result = json.loads(typed(*run.words, "--json", cwd=home["clinic"]))
        assert result["ledger_verified"]
        typed("comity", "report", result["session"], "--out", "report.html", cwd=home["clinic"])
    page = (home["clinic"] / "report.html").read_text()
    assert result["session"] in page
    assert result["digest"][:12] in page
    # Nothing of it went into the home.
    assert [each.name for each in empty.iterdir() if each.name != ".cache"] == []
