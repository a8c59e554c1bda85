"""Flower's server pays clients in gradients: in an app of its quickstart's shape, with one line of it changed.

Flower holds back versions of what Comity needs, so that it has an environment of its own here.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import clean_environment
from tests.e2e.pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_HERE = Path(__file__).parent / "flower"
_BEFORE = "from flwr.serverapp.strategy import FedAvg\n"
_AFTER = "from comity.integrations.flower import GradientRewards as FedAvg\n"
_ROW = re.compile(r"│ +(\d+) +(-?\d\.\d+) +(\d\.\d+) +(\d+\.\d)%")
_CLIENTS = 4
_ROUNDS = 6


@pytest.fixture(scope="module")
def flower() -> Iterator[Path]:
    """Where the commands of an environment are that has Comity with its extra, and Flower's simulations."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv makes Flower's environment")
    folder = ROOT / "build" / "flower"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    place = ["--quiet", "--python", str(folder)]
    if subprocess.run([uv, "pip", "install", *place, "flwr[simulation]>=1.42"], check=False).returncode:
        pytest.skip("Flower cannot be installed here")
    subprocess.run([uv, "pip", "install", *place, ".[flower]", "pytest"], cwd=ROOT, check=True)
    yield folder / "bin"
    shutil.rmtree(folder)


def _answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def environment(flower: Path, home: Path) -> dict[str, str]:
    """Flower's home in a folder, and nobody told of what is run."""
    own = {"PATH": f"{flower}{os.pathsep}{os.environ['PATH']}", "HOME": str(home), "FLWR_HOME": str(home / "flwr")}
    own |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(home)}
    return clean_environment(**own, OMP_NUM_THREADS="1")


@pytest.fixture
def superlink(flower: Path, short_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which `flwr run . here` runs an app, at a SuperLink that simulates its nodes."""
    own = environment(flower, short_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (short_path / "flwr").mkdir()
    (short_path / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    typed = ["flower-superlink", "--insecure", "--simulation", "--disable-runtime-dependency-installation"]
    log = short_path / "superlink.log"
    with log.open("w") as file:
        link = subprocess.Popen(
            [str(flower / typed[0]), *typed[1:], "--host", "127.0.0.1", "--port", str(port)],
            env=own,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        while link.poll() is None and not _answers(port):
            time.sleep(0.1)
        assert link.poll() is None, log.read_text()
        yield own
    finally:
        below = psutil.Process(link.pid).children(recursive=True) if link.poll() is None else []
        link.terminate()
        link.wait(60)
        # A simulation's processes outlive the link.
        for process in psutil.wait_procs(below, timeout=10)[1]:
            process.kill()


def test_what_is_sent_taken_paid_and_refused(flower: Path, tmp_path: Path) -> None:
    alone = ["-q", "--noconftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(_HERE)]
    typed = [str(flower / "python"), "-m", "pytest", *alone, str(_HERE / "messages.py")]
    done = subprocess.run(
        typed, cwd=tmp_path, env=environment(flower, tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_the_quickstart_pays_clients_in_gradients_with_one_line_changed(
    flower: Path, superlink: dict[str, str], tmp_path: Path
) -> None:
    app = tmp_path / "quickstart"
    shutil.copytree(_HERE / "quickstart", app, ignore=shutil.ignore_patterns("__pycache__"))
    server = app / "pytorchexample" / "server_app.py"
    page = (ROOT / "docs" / "flower.md").read_text()
    assert server.read_text().count(_BEFORE) == 1
    assert _AFTER in page
    assert f"`{_BEFORE.strip()}`" in page
    server.write_text(server.read_text().replace(_BEFORE, _AFTER))
    typed = ["flwr", "run", ".", "here", "--stream", "--federation-config", f"num-supernodes={_CLIENTS}"]
    done = subprocess.run(
        [str(flower / typed[0]), *typed[1:]],
        cwd=app,
        env=superlink,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    said = done.stdout
    assert done.returncode == 0, said
    assert "Starting GradientRewards strategy" in said
    rounds = said.split("Gradient rewards of round ")[1:]
    assert len(rounds) == _ROUNDS, said
    for each in rounds:
        rows = _ROW.findall(each)
        assert len(rows) == _CLIENTS
        assert sum(float(importance) for _, _, importance, _ in rows) == pytest.approx(1, abs=1e-3)
        assert max(float(share) for *_, share in rows) == 100
    last = {client: (float(importance), float(share)) for client, _, importance, share in _ROW.findall(rounds[-1])}
    # Nine in ten of one client's labels are wrong: it has the least importance, by far, and half the aggregate at most.
    (least, share), (second, _), *_ = sorted(last.values())
    assert least < second / 2
    assert share < 50
    worst = min(last, key=lambda client: last[client])
    own = {
        client: float(accuracy)
        for client, accuracy in re.findall(r"│ +(\d+) +r \d\.\d+ +\{.*?'eval_acc': (\d\.\d+)", rounds[-1])
    }
    assert min(own, key=lambda client: own[client]) == worst
    accuracies = [float(each) for each in re.findall(r"MetricRecord: \{'accuracy': (\d\.\d+)", said)]
    assert len(accuracies) == _ROUNDS
    assert accuracies[-1] > 0.6
