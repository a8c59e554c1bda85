"""The log: which session and round a line is about, and a file that does not fill the disk."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from comity.errors import InvalidValue
from comity.node.garbage import was_killed
from comity.node.log_file import RotatingFile
from comity.node.logs import configure_logs
from comity.session import log_context
from comity.session.events import Event
from tests.e2e.network import in_a_thread


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    found = structlog.get_config()
    yield
    structlog.configure(**found)
    structlog.contextvars.clear_contextvars()
    log_context.end("s-1")


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_about_a_session_says_in_which_round_that_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    log = structlog.get_logger()
    log_context.begin("s-1", 1)
    log.info("about-it", session="s-1")
    log_context.note("s-1", Event("round-finished", 1), 2)
    with structlog.contextvars.bound_contextvars(session="s-1"):
        log.info("within-it")
        log.info("of-another-round", round=1)
    log_context.note("s-1", Event("round-finished", 2), 2)
    log.info("last", session="s-1")
    log_context.end("s-1")
    log.info("afterwards", session="s-1")
    log.info("about-none")
    found = [(each["event"], each.get("session"), each.get("round")) for each in logged(capsys)]
    assert found == [
        ("about-it", "s-1", 1),
        ("within-it", "s-1", 2),
        ("of-another-round", "s-1", 1),
        ("last", "s-1", 2),
        ("afterwards", "s-1", None),
        ("about-none", None, None),
    ]


def test_the_file_is_put_aside_when_it_is_long_and_old_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "node.log"
    file = RotatingFile(path, 10_000, 2)
    configure_logs(file=file)
    log = structlog.get_logger()
    for number in range(400):
        log.info("something", number=number, text="x" * 80)
    file.close()
    kept = sorted(each.name for each in path.parent.iterdir())
    assert kept == ["node.log", "node.log.1", "node.log.2"]
    numbers = []
    for name in ("node.log.2", "node.log.1", "node.log"):
        assert (path.parent / name).stat().st_size <= 10_000
        assert (path.parent / name).stat().st_mode & 0o077 == 0
        numbers += [json.loads(line)["number"] for line in (path.parent / name).read_text().splitlines()]
    assert numbers == list(range(numbers[0], 400))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said_once_and_standard_error_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    file = RotatingFile(Path("/dev/full"), 10_000, 1)
    # It is no file that could be put aside.
    file.maxBytes = 0
    configure_logs(file=file)
    for number in range(3):
        structlog.get_logger().info("something", number=number)
    events = [each["event"] for each in logged(capsys)]
    assert events == ["log-file-not-written", "something", "something", "something"]
    # What could not be written is still there to be tried, and fails again.
    with contextlib.suppress(OSError):
        file.close()


def test_a_file_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InvalidValue, match=r"logs\.file .* cannot be used") as refused:
        RotatingFile(tmp_path / "taken" / "node.log", 10_000, 1)
    assert "make its folder writable" in str(refused.value)
    assert os.linesep not in str(refused.value)


def test_a_node_that_was_killed_says_so_when_it_is_back() -> None:
    with TemporaryDirectory(prefix="e2e-") as name:
        values = {"party": "clinic", "insecure": True, "state_dir": Path(name)}
        for killed in (False, True, False):
            if killed:
                # What a node leaves that came to no end.
                (Path(name) / "running").touch()
            with capture_logs() as logs, in_a_thread("analyst", values):
                assert was_killed(Path(name))
            said = [each for each in logs if each["event"] == "node-was-killed"]
            assert len(said) == killed
            assert all("max_memory_bytes" in each["action"] for each in said)
            assert not was_killed(Path(name))
