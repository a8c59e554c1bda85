"""`docs/two-machines.md`, word for word: what it has two operators type, and what it says that they will see.

Between the page's blocks, the test does what it asks for in prose: it carries the cards.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.e2e.conftest import clean_environment, until
from tests.e2e.machines import Machines, two_machines
from tests.e2e.pages import Step, missing, steps

PAGE = Path(__file__).parents[2] / "docs" / "two-machines.md"
PATIENCE_S = 300


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
def machines() -> Iterator[Machines]:
    """Two machines with nothing on them; on a disk, or the page's checks would warn."""
    with TemporaryDirectory(prefix="e2e-", dir="/tmp") as folder, two_machines(Path(folder)) as made:
        yield made


STEPS = steps(PAGE)


@pytest.mark.slow
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
