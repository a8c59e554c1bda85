"""Examples, the page for Python users and the algorithms' doctests, each as a user would run it."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import comity
from comity.node.sessions.script import parse_script
from comity.simulation.processes import running
from tests.e2e.pages import ROOT, blocks

EXAMPLES = sorted(ROOT.glob("examples/*.py"))
PAGE = ROOT / "docs" / "python.md"
SAID = {
    "bargaining_with_torchjd": ["powers [0.25, 0.7", "test accuracy 0.8"],
    "algorithms_alone": ["checkpoint 4", "by a full evaluation: 4", "exact Shapley"],
    "own_model_and_tensors": [
        "assisted",
        "global loss never rises",
        "accuracy of the model in hand",
        "kept in assisted",
    ],
    "rewards_of_five_clients": ["right-4", "wrong-60", "plotted to rewards.png"],
    "two_nodes": ["round 3: global loss", "clinic: session", "hospital: session", "finished", "2410 parameters"],
}
LEFT = {"own_model_and_tensors": ["assisted/model.safetensors"], "rewards_of_five_clients": ["rewards.png"]}
NODES = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital"]
rounds = 1
[party.clinic]
role = "learner"
data = { source = "digits", per_class = 10 }
[party.hospital]
role = "provider"
data = { source = "digits", per_class = 20 }
"""


def user(folder: Path, *words: str, deadline_s: float = 200) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user who has the package installed, from a folder of their own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMITY_", "PYTEST_", "PYTHONPATH"))}
    # Beside other tests, more threads than cores would wait for each other most of the time.
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=kept | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline_s,
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_from_another_folder(example: Path, tmp_path: Path) -> None:
    done = user(tmp_path, str(example))
    assert done.returncode == 0, done.stderr
    assert not [each for each in SAID[example.stem] if each not in done.stdout], done.stdout
    assert all((tmp_path / name).is_file() for name in LEFT.get(example.stem, []))


@pytest.mark.slow
def test_the_examples_are_typed_outside_the_source_tree(tmp_path: Path) -> None:
    for example in EXAMPLES:
        (tmp_path / example.name).write_text(example.read_text())
    (tmp_path / "wrong.py").write_text("import comity\n\ncomity.simulate('protocol', 3)\ncomity.simulat('protocol')\n")
    ignored = "[mypy]\nstrict = True\n[mypy-sklearn.*]\nignore_missing_imports = True\n"
    (tmp_path / "mypy.ini").write_text(ignored)
    done = user(tmp_path, "-m", "mypy", "--config-file", "mypy.ini", *(each.name for each in EXAMPLES))
    assert done.returncode == 0, done.stdout
    # What is wrong is found: the types are there.
    wrong = user(tmp_path, "-m", "mypy", "--config-file", "mypy.ini", "wrong.py").stdout
    assert 'Argument 2 to "simulate"' in wrong
    assert "Module not callable" in wrong


def test_the_page_runs_block_by_block(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(PAGE, "python")
    assert len(found) > 5
    scope: dict[str, Any] = {"__name__": "page"}
    with running(parse_script(NODES), short_path):
        monkeypatch.chdir(short_path)
        for block in found:
            exec(compile(block.body, str(PAGE), "exec"), scope)
    assert (short_path / "assisted" / "model.safetensors").is_file()
    assert scope["result"].ledger_verified


def test_the_page_on_models_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "models.md"
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block.body, str(page), "exec"), scope)
    assert scope["result"].ledger_verified


@pytest.mark.parametrize("name", ["assisted_learning", "gradient_rewards"])
def test_the_doctests_of_a_protocols_algorithms(name: str) -> None:
    package = getattr(comity, name)
    offered = {getattr(package, each) for each in package.__all__ if callable(getattr(package, each))}
    modules = {each.__module__ for each in offered if each.__module__.startswith(package.__name__)}
    failed = attempted = 0
    for module in sorted(modules):
        found = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
        failed, attempted = failed + found.failed, attempted + found.attempted
    assert not failed
    assert attempted >= 10
