"""The README's commands work, in the order in which a reader meets them.

In a ```console block a line that begins with `$ comity` is a command to be run, here in an empty folder of the block's
own; what a block shows below it is not compared. Commands that start daemons, or need another machine, stand in ```sh
blocks, of which only the verbs and options are checked.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

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
        done = comity("-c", command, cwd=short_path, executable=Path("/bin/sh"))
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_that_is_only_shown_can_be_parsed(command: str) -> None:
    words = shlex.split(re.split(r"[|>&;#]", command)[0])
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert words[1] in verbs
    verbs[words[1]].make_context(words[1], words[2:]).close()


def test_a_readers_commands_are_found() -> None:
    text = "```console\n$ comity demo \\\n    --seed 7\nround  pick\n$ make demo\n```\n```sh\ncomity node learner --config l.toml\n```\n"
    bodies = {each["language"]: each["body"].replace("\\\n", " ") for each in FENCE.finditer(text)}
    assert [shlex.split(each) for each in commands(bodies["console"], "$ ")] == [["comity", "demo", "--seed", "7"]]
    assert commands(bodies["sh"], "") == ["comity node learner --config l.toml"]
