"""The README's commands work, in the order in which a reader meets them.

In a ```console block a line that begins with `$ comity` is a command to be run, here in an empty folder of the block's
own; what a block shows below it is not compared. Commands that start daemons, or need another machine, stand in ```sh
blocks, of which only the verbs and options are checked.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from comity.cli.main import app

README = Path(__file__).parents[2] / "README.md"
FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The README's blocks of a language, continued lines joined."""
    text = README.read_text() if README.is_file() else ""
    return [each["body"].replace("\\\n", " ") for each in FENCE.finditer(text) if each["language"] == language]


def commands(block: str, prompt: str) -> list[str]:
    """The `comity` commands in a block."""
    lines = [line.strip() for line in block.splitlines()]
    return [line.removeprefix(prompt) for line in lines if line.startswith(f"{prompt}comity ")]


RUN = [each for each in (commands(block, "$ ") for block in blocks("console")) if each]
SHOWN = [each for block in blocks("sh") for each in commands(block, "")]


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids="; ".join)
def test_a_block_of_commands_runs(block: list[str], comity: Any, short_path: Path) -> None:
    for command in block:
        # Beside other tests, more threads than cores would wait for each other most of the time.
        done = comity("-c", command, cwd=short_path, executable=Path("/bin/sh"))
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_that_is_only_shown_can_be_parsed(command: str) -> None:
    words = shlex.split(re.split(r"[|>&;#]", command)[0])
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert words[1] in verbs
    verbs[words[1]].make_context(words[1], words[2:]).close()


def side(role: str) -> list[list[str]]:
    """What the README has one side of two machines type."""
    (block,) = [each for each in blocks("sh") if f"comity init {role}" in each]
    return [shlex.split(each) for each in commands(block, "")]


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
def test_the_two_machines(own_hand: Any, comity: Any) -> None:
    """What the README has its readers type on two machines, here in two folders, with pictures of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    home = {party: own_hand.site.folder / party for party in ("hospital", "clinic")}
    for party, folder in home.items():
        folder.mkdir()
        make_scans(folder / "scans", seed=len(party))

    def typed(party: str, words: list[str]) -> None:
        done = comity(*words[1:], cwd=home[party])
        assert done.returncode == 0, done.stdout + done.stderr

    (provider, *provider_on), (learner, *learner_on) = side("provider"), side("learner")
    typed("hospital", [*provider, "--listen", address])
    place = "hospital.example.org:5500"
    assert any(place in word for word in learner)
    typed("clinic", [word.replace(place, address) for word in learner])
    for party, other in (("hospital", "clinic"), ("clinic", "hospital")):
        shutil.copy(home[other] / f"{other}.pem", home[party])
    for party, words in (
        *(("hospital", each) for each in provider_on),
        *(("clinic", each) for each in learner_on[:-1]),
    ):
        if words[1] == "node":
            own_hand.ready(own_hand.start(words, home[party], forked=False))
        else:
            typed(party, words)
    result = comity.json(*learner_on[-1][1:], cwd=home["clinic"])
    assert result["ledger_verified"]
    assert (home["clinic"] / "state" / "sessions" / result["session"] / "model.safetensors").is_file()


def test_a_readers_commands_are_found() -> None:
    text = "```console\n$ comity demo \\\n    --seed 7\nround  pick\n$ make demo\n```\n```sh\ncomity node learner --config l.toml\n```\n"
    bodies = {each["language"]: each["body"].replace("\\\n", " ") for each in FENCE.finditer(text)}
    assert [shlex.split(each) for each in commands(bodies["console"], "$ ")] == [["comity", "demo", "--seed", "7"]]
    assert commands(bodies["sh"], "") == ["comity node learner --config l.toml"]
