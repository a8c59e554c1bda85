"""`docs/two-machines.md`, word for word: what it has two operators type, and what it says that they will see."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.e2e.machines import Machines, two_machines
from tests.e2e.pages import PATIENCE_S, ROOT, Follower, missing, steps

STEPS = steps(ROOT / "docs" / "two-machines.md")


@pytest.fixture
def machines() -> Iterator[Machines]:
    """Two machines with nothing on them; on a disk, or the page's checks would warn."""
    with TemporaryDirectory(prefix="e2e-", dir="/tmp") as folder, two_machines(Path(folder)) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
def test_the_page_word_for_word(
    machines: Machines, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    record_property("machines", machines.what)
    with capsys.disabled():
        sys.stdout.write(f"\ndocs/two-machines.md on {machines.what}\n")
    with ExitStack() as stack:
        operators = Follower(machines.folders, stack, machines.command)
        for step in STEPS:
            if step.is_network:
                machines.switch(step.side, step.line, operators.running)
            else:
                operators.take(step)
        for side, node in operators.running.items():
            node.terminate()
            assert node.wait(20) == 0, side
    # What was exchanged is public, and the keys stayed where they were made.
    keys = {side: (folder / "key.pem").read_bytes() for side, folder in machines.folders.items()}
    for side, folder in machines.folders.items():
        (other,) = set(keys) - {side}
        files = [each for each in folder.rglob("*") if each.is_file()]
        assert not [each for each in files if keys[other] in each.read_bytes()]


def test_each_side_types_five_commands() -> None:
    first = STEPS[: next(number for number, step in enumerate(STEPS) if step.is_network)]
    typed: dict[str, list[Any]] = {
        side: [step.line for step in first if step.side == side] for side in ("hospital", "clinic")
    }
    assert {side: len(lines) for side, lines in typed.items()} == {"hospital": 5, "clinic": 5}


def test_a_page_that_shows_what_does_not_come_is_noticed() -> None:
    assert not missing(["a …", "session s-0123456789ab  b"], "a 1\nnoise\nsession  s-ba9876543210 b")
    assert missing(["b", "a"], "a\nb\n") == ["a"]
    assert missing(["s-0123456789ab"], "s-9") == ["s-0123456789ab"]
