"""The README's commands work, in the order in which a reader meets them.

In a ```console block a line that begins with `$ comity` is a command to be run, here in an empty folder of the block's
own; what a block shows below it is not compared. Commands that start daemons, or need another machine, stand in ```sh
blocks, of which only the verbs and options are checked.
"""

from __future__ import annotations

import re
import shlex
import shutil
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


def block_with(language: str, words: str) -> str:
    """The README's first block of a language with some words in it."""
    found = [each for each in blocks(language) if words in each]
    assert found, f"the README has no {language} block with {words!r}"
    return found[0]


def command_with(words: str) -> list[str]:
    """The README's first shown command with some words in it."""
    return shlex.split(next(command for command in SHOWN if words in command))


def make_scans(folder: Path, seed: int) -> None:
    """Small pictures of two kinds, as folders."""
    random = np.random.default_rng(seed)
    for split in ("train", "test"):
        for label in ("clear", "cloudy"):
            (folder / split / label).mkdir(parents=True)
            for number in range(8):
                pixels = random.integers(0, 128, (32, 32, 3)) + (0 if label == "clear" else 100)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / label / f"{number}.png")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the README's keys are made with openssl")
def test_the_two_machines(own_hand: Any, comity: Any) -> None:
    """What the README has its readers write and run on two machines, here in two folders with a small model."""
    home = own_hand.site.folder
    hospital, clinic = home / "hospital", home / "clinic"
    keys = block_with("sh", "openssl")
    for folder in (hospital, clinic):
        folder.mkdir()
        done = comity("-c", keys.replace("hospital", folder.name), cwd=folder, executable=Path("/bin/sh"))
        assert done.returncode == 0, done.stderr
        make_scans(folder / "scans", seed=len(folder.name))
    shutil.copy(clinic / "clinic.pem", hospital)
    shutil.copy(hospital / "hospital.pem", clinic)

    listen = "0.0.0.0:5500"
    provider = block_with("toml", 'party = "hospital"')
    assert listen in provider
    (hospital / "provider.toml").write_text(provider.replace(listen, "127.0.0.1:0"))
    address = own_hand.ready(own_hand.start(command_with("node provider"), hospital))
    learner = block_with("toml", 'party = "clinic"')
    assert "hospital.example.org:5500" in learner
    (clinic / "learner.toml").write_text(learner.replace("hospital.example.org:5500", address))
    own_hand.ready(own_hand.start(command_with("node learner"), clinic))

    session = block_with("toml", "[session]")
    for long, short in (
        ("rounds = 10", "rounds = 2"),
        ('"resnet18-cifar"', '"lenet5"'),
        ("iterations = 2000", "iterations = 20"),
        ("sampling_period = 50", "sampling_period = 5"),
    ):
        assert long in session
        session = session.replace(long, short)
    (clinic / "session.toml").write_text(session)
    result = comity.json(*command_with("comity run")[1:], cwd=clinic)
    assert result["rounds"] == 2
    assert result["ledger_verified"]
    assert (clinic / "state" / "sessions" / result["session"] / "model.safetensors").is_file()


def test_a_readers_commands_are_found() -> None:
    text = "```console\n$ comity demo \\\n    --seed 7\nround  pick\n$ make demo\n```\n```sh\ncomity node learner --config l.toml\n```\n"
    bodies = {each["language"]: each["body"].replace("\\\n", " ") for each in FENCE.finditer(text)}
    assert [shlex.split(each) for each in commands(bodies["console"], "$ ")] == [["comity", "demo", "--seed", "7"]]
    assert commands(bodies["sh"], "") == ["comity node learner --config l.toml"]
