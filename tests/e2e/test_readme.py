"""The README's commands work, in the order in which a reader meets them."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.e2e.pages import ROOT, Block, Follower, Step, blocks, steps_of

README = ROOT / "README.md"
RUN = blocks(README, "console")
PLACE = "hospital.example.org:5500"


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=lambda block: "; ".join(block.lines))
def test_a_block_of_commands_runs(block: Block, short_path: Path) -> None:
    assert all(line.startswith("$ ") for line in block.lines)
    with ExitStack() as stack:
        reader = Follower({"": short_path}, stack)
        for step in steps_of(block):
            reader.take(step)


def side(role: str, name: str) -> list[Step]:
    """What the README has one side of two machines type."""
    (block,) = [each for each in blocks(README, "sh") if f"comity init {role}" in each.body]
    return [Step(name, line) for line in block.lines]


def make_scans(folder: Path, seed: int) -> None:
    """Small pictures of two kinds, as folders; to train on, as many as a guarded node wants behind a checkpoint."""
    random = np.random.default_rng(seed)
    for split, count in (("train", 200), ("test", 8)):
        for label in ("clear", "cloudy"):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 128, (32, 32, 3)) + (0 if label == "clear" else 100)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / label / f"{number}.png")


@pytest.mark.slow
def test_the_two_machines(short_path: Path, comity: Any) -> None:
    """What the README has its readers type on two machines, here in two folders, with pictures of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    home = {party: short_path / party for party in ("hospital", "clinic")}
    for party, folder in home.items():
        folder.mkdir()
        make_scans(folder / "scans", seed=len(party))
    (provider, *provider_on), (learner, *learner_on, run) = side("provider", "hospital"), side("learner", "clinic")
    provider.line += f" --listen {address}"
    assert PLACE in learner.line
    learner.line = learner.line.replace(PLACE, address)
    with ExitStack() as stack:
        operators = Follower(home, stack)
        # Both have a card before either takes the other's.
        for step in (provider, learner, *provider_on, *learner_on):
            step.shown += ["…node-ready…"] if step.goes_on else []
            operators.take(step)
        result = comity.json(*run.words[1:], cwd=home["clinic"])
        assert result["ledger_verified"]
        assert (home["clinic"] / "state" / "sessions" / result["session"] / "model.safetensors").is_file()
