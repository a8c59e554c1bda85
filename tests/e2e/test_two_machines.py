"""`docs/two-machines.md`, word for word: what it has two operators type, and what it says that they will see.

In a ```console block, `hospital$` and `clinic$` begin what an operator types on that side, `clinic#` what its
administrator does to the network; the lines below must come, in that order, among what the command prints. `…` stands for
anything, and a session's identifier for whatever the session is called. A ```text block tells what a command that goes on
says once it is interrupted. Between the blocks, the test does what the page asks for in prose: it carries the cards.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import clean_environment, until
from tests.e2e.machines import Machines, two_machines

PAGE = Path(__file__).parents[2] / "docs" / "two-machines.md"
FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"^(?P<side>hospital|clinic)(?P<prompt>[$#]) (?P<line>.+)$")
PATIENCE_S = 300


@dataclass
class Step:
    """What one side does.

    Attributes:
        side: Who.
        line: What is typed.
        shown: What the page shows below it.
        interrupted: What it shows to come after Ctrl-C; nothing where none is pressed.
        network: Whether it is done to the network.
    """

    side: str
    line: str
    shown: list[str]
    network: bool
    interrupted: list[str] = field(default_factory=list)


def steps() -> list[Step]:
    """The page's steps, in its order."""
    found: list[Step] = []
    for block in FENCE.finditer(PAGE.read_text(encoding="utf-8")):
        lines = [line for line in block["body"].splitlines() if line.strip()]
        if block["language"] == "text":
            found[-1].interrupted = lines
        if block["language"] == "console":
            typed = TYPED.match(lines[0])
            assert typed is not None, lines[0]
            found.append(Step(typed["side"], typed["line"], lines[1:], network=typed["prompt"] == "#"))
    return found


def missing(shown: list[str], printed: str) -> list[str]:
    """What of the shown lines does not come, in their order, among what was printed."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for at, line in enumerate(shown):
        pattern = re.escape(" ".join(line.split())).replace("\\ …", ".*").replace("…", ".*")
        pattern = re.sub(r"s\\-[0-9a-f]{12}", r"s-[0-9a-f]{12}", pattern)
        if not any(re.fullmatch(pattern, each) for each in lines):
            return shown[at:]
    return []


class Operators:
    """Both operators at their machines."""

    def __init__(self, machines: Machines, stack: ExitStack) -> None:
        self.machines = machines
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self._stack = stack

    def take(self, step: Step) -> None:
        """Does one step, and looks whether what the page shows comes."""
        if step.network:
            self.machines.switch(step.side, step.line, self.nodes)
            return
        words = shlex.split(step.line)
        if words[1:3] == ["trust", "add"]:
            # They send each other their cards.
            (other,) = set(self.machines.folders) - {step.side}
            shutil.copy(self.machines.folders[other] / words[-1], self.machines.folders[step.side])
        if "node" in words[1:3]:
            self.nodes[step.side] = self._begin(step)
        elif step.interrupted:
            process = self._begin(step)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            self._wait_for(step, step.interrupted)
        else:
            self._finish(step)

    def _finish(self, step: Step) -> None:
        done = subprocess.run(
            self._typed(step),
            cwd=self.machines.folders[step.side],
            env=clean_environment(OMP_NUM_THREADS="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        bad = any(line.startswith(("✗", "comity: ")) for line in step.shown)
        assert bool(done.returncode) == bad, done.stdout
        assert "Traceback" not in done.stdout
        assert not missing(step.shown, done.stdout), f"{step.side}$ {step.line}\n{done.stdout}"

    def _begin(self, step: Step) -> subprocess.Popen[str]:
        """Starts what goes on, and waits for what it shows."""
        with self._output(step).open("w") as output:
            process = subprocess.Popen(
                self._typed(step),
                cwd=self.machines.folders[step.side],
                env=clean_environment(OMP_NUM_THREADS="1"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self._wait_for(step, step.shown)
        return process

    def _wait_for(self, step: Step, shown: list[str]) -> None:
        output = self._output(step)
        until(lambda: not missing(shown, output.read_text()), f"{step.side}$ {step.line}: {shown}", deadline_s=90)

    def _typed(self, step: Step) -> list[str]:
        # This very process becomes the command, so that signals reach it.
        return self.machines.command(step.side, f"exec env {step.line}")

    def _output(self, step: Step) -> Path:
        return self.machines.folders[step.side].parent / f"{step.side}-{shlex.split(step.line)[-1]}.out"


@pytest.fixture
def machines(short_path: Path) -> Iterator[Machines]:
    """Two machines with nothing on them."""
    with two_machines(short_path) as made:
        yield made


STEPS = steps()


@pytest.mark.timeout(2 * PATIENCE_S)
def test_the_page_word_for_word(
    machines: Machines, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    record_property("machines", machines.what)
    with capsys.disabled():
        sys.stdout.write(f"\ndocs/two-machines.md on {machines.what}\n")
    with ExitStack() as stack:
        operators = Operators(machines, stack)
        for step in STEPS:
            operators.take(step)
        for side, node in operators.nodes.items():
            node.terminate()
            assert node.wait(20) == 0, side
    # What was exchanged is public, and the keys stayed where they were made.
    keys = {side: (folder / "key.pem").read_bytes() for side, folder in machines.folders.items()}
    for side, folder in machines.folders.items():
        (other,) = set(keys) - {side}
        files = [each for each in folder.rglob("*") if each.is_file()]
        assert not [each for each in files if keys[other] in each.read_bytes()]


def test_each_side_types_five_commands() -> None:
    first = STEPS[: next(number for number, step in enumerate(STEPS) if step.network)]
    typed: dict[str, list[Any]] = {
        side: [step.line for step in first if step.side == side] for side in ("hospital", "clinic")
    }
    assert {side: len(lines) for side, lines in typed.items()} == {"hospital": 5, "clinic": 5}


def test_a_page_that_shows_what_does_not_come_is_noticed() -> None:
    assert not missing(["a …", "session s-0123456789ab  b"], "a 1\nnoise\nsession  s-ba9876543210 b")
    assert missing(["b", "a"], "a\nb\n") == ["a"]
    assert missing(["s-0123456789ab"], "s-9") == ["s-0123456789ab"]
