"""Standard error of a node that nobody reads: neither its work nor its end waits for a reader."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from comity.errors import InvalidValue
from comity.node.control_client import ControlClient
from comity.node.log_file import RotatingFile
from comity.node.sessions.script import session_text
from comity.node.spooled_stream import SpooledStream
from comity.simulation.processes import prepare
from tests.cases import plain
from tests.e2e.conftest import until


@contextmanager
def unread(path: Path) -> Iterator[int]:
    """A named pipe that is full; gives the end that could be read."""
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(end, b"." * 4095 + b"\n")
        yield end
    finally:
        os.close(end)


def lines_of(end: int) -> list[str]:
    """What is in a pipe."""
    data = b""
    with pytest.raises(BlockingIOError):
        while True:
            data += os.read(end, 2**16)
    return [each for each in data.decode().splitlines() if each.startswith("{")]


@pytest.mark.slow
def test_nodes_whose_log_nobody_reads_have_their_session_and_stop() -> None:
    script = plain("teacher_votes").script
    with TemporaryDirectory(prefix="e2e-") as name, ExitStack() as stack:
        nodes = prepare(script, Path(name))
        ends = [stack.enter_context(unread(node.folder / "log")) for node in nodes.values()]
        for node in nodes.values():
            stack.callback(node.kill)
            node.start()
        for node in nodes.values():
            node.wait_ready()
        (initiator,) = set(nodes) - set(script.session.acceptors)
        with ControlClient(nodes[initiator].control_url) as control:
            session = control.run(session_text(script))
            until(lambda: control.details(session).summary.state == "finished", "it is over")
        # Once somebody reads, the lines are there that waited.
        events = []
        until(
            lambda: (
                events.extend(json.loads(each)["event"] for each in lines_of(ends[-1])) or "session-ended" in events
            ),
            "the lines come",
        )
        for node in nodes.values():
            node.stop()
        assert {node.exit_code(None) for node in nodes.values()} == {0}


def test_lines_beyond_what_waits_are_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.node.spooled_stream._MOST_BYTES", 1000)
    with TemporaryDirectory() as name, unread(Path(name) / "pipe") as end:
        stream = SpooledStream(os.open(Path(name) / "pipe", os.O_WRONLY))
        for number in range(100):
            print(json.dumps({"event": "something", "number": number}), file=stream, flush=True)
        found: list[dict[str, object]] = []

        def arrived(last: str) -> bool:
            found.extend(json.loads(each) for each in lines_of(end))
            return bool(found) and found[-1]["event"] == last

        until(lambda: arrived("something") and len(found) > 2, "the lines come")
        print(json.dumps({"event": "afterwards"}), file=stream)
        until(lambda: arrived("afterwards"), "the next line comes")
        kept = [each for each in found if each["event"] == "something"]
        lost = [each["lost"] for each in found if each["event"] == "log-lines-lost"]
        assert [each["number"] for each in kept] == [*range(len(kept))]
        assert sum(lost) == 100 - len(kept) > 0  # type: ignore[arg-type]
        stream.end()
        os.close(stream.fileno())


def test_a_reader_that_is_gone_fails_nobody_and_the_end_waits_for_none() -> None:
    end, into = os.pipe()
    os.close(end)
    stream = SpooledStream(into)
    for _ in range(3):
        print("gone", file=stream, flush=True)
    stream.end()
    os.close(into)
    with TemporaryDirectory() as name, unread(Path(name) / "pipe") as end:
        stream = SpooledStream(os.open(Path(name) / "pipe", os.O_WRONLY))
        print("nobody reads", file=stream)
        stream.end(0.1)
        lines_of(end)
        until(lambda: not _is_alive("log-lines"), "its thread ends")
        os.close(stream.fileno())


def _is_alive(thread: str) -> bool:
    return any(each.name == thread for each in threading.enumerate())


def test_a_named_pipe_is_no_log_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "node.log")
    with pytest.raises(InvalidValue, match="received a named pipe"):
        RotatingFile(tmp_path / "node.log", 10_000, 1)


def test_what_never_ends_its_line_takes_no_more_and_more_memory() -> None:
    """A bar of progress that a model of others' code draws begins its line anew, and never ends it."""
    end, into = os.pipe()
    stream = SpooledStream(into)
    drawn = f"\r{'#' * 70}" * 1000
    for _ in range(20):
        stream.write(drawn)
        assert len(stream._begun) < len(drawn)
        until(lambda: len(os.read(end, 2 * len(drawn))) > 0, "it comes")
    stream.end(1.0)
    os.close(into)
    os.close(end)
