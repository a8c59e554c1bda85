"""What people type wrong: one line, the right exit code; and an interrupt at any moment."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from comity.wire.v1 import control_pb2 as pb
from comity.wire.v1 import control_pb2_grpc

SESSION = '[session]\nprotocol = "federated_count"\nacceptors = ["hospital"]\nrounds = 1\n'


@pytest.fixture(scope="module")
def node(site: Any, typed: Any) -> Path:
    """The folder of a clinic that `comity init` made, and beside it a hospital's."""
    for arguments in (
        ("init", "learner", "clinic", "--party", "clinic", "--peer", "hospital=127.0.0.1:1"),
        ("init", "provider", "hospital", "--party", "hospital"),
    ):
        assert typed(*arguments, cwd=site.folder).returncode == 0
    folder: Path = site.folder / "clinic"
    return folder


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["init", "doctor", "d", "--party", "d"],
            ("no such role", "learner", "provider", "operator", "doctor"),
        ),
        (["init", "lerner", "d", "--party", "d"], ("did you mean learner?",)),
        (["init", "learner", "clinic", "--party", "clinic"], ("is there already", "left as it is")),
        (["init", "learner", "clinic/node.toml", "--party", "c"], ("is no folder", "received a file")),
        (["init", "learner", "d", "--party", "a party"], ("not a party's name", "a party")),
        (["init", "learner", "d", "--party", "d", "--listen", "127.0.0.1:1"], ("does not listen", "--listen")),
        (["init", "learner", "d", "--party", "d", "--peer", "hospital"], ("NAME=HOST:PORT", "received hospital")),
        (["init", "learner", "d", "--party", "d", "--peer", "d=a:1"], ("cannot ask itself",)),
        (["init", "provider", "d", "--party", "d", "--control", "5600"], ("not an address", "5600")),
        (["init", "operator", "d", "--party", "d", "--control", "a:1"], ("an operator has no node",)),
        (["trust", "add", "hospital", "nowhere.pem", "--node", "clinic"], ("nowhere.pem cannot be read", "nothing")),
        (["trust", "add", "hospital", "hospital", "--node", "clinic"], ("received a folder",)),
        (["trust", "add", "hospital", "clinic/node.toml", "--node", "clinic"], ("certificates in PEM",)),
        (["trust", "add", "hospital", "hospital/key.pem", "--node", "clinic"], ("PRIVATE KEY", "delete it")),
        (["trust", "add", "clinic", "hospital/hospital.pem", "--node", "hospital"], ("another party's card",)),
        (["trust", "add", "hospital", "hospital/hospital.pem", "--node", "nowhere"], ("no node is configured here",)),
        (["trust", "add", "hospital", "hospital/hospital.pem", "--node", "hospital"], ("own party",)),
        (["node", "doctor"], ("no such role", "learner", "provider", "doctor")),
        (["node", "learnr"], ("did you mean learner?",)),
        (["run", "clinic", "--node", "clinic"], ("received a folder",)),
        (["run", "clinic/session.toml", "--node", "clinic"], ("no node runs here", "start the node")),
        (["run", "picture.toml", "--node", "clinic"], ("cannot be read", "UTF-8")),
        (["run", "broken.toml", "--rounds", "3", "--node", "clinic"], ("is no TOML",)),
        (["simulate", "clinic"], ("received a folder",)),
        (["offline", "import", "nowhere.bundle", "--config", "clinic/node.toml"], ("nowhere.bundle", "check the path")),
        (["offline", "export", "--config", "hospital/node.toml"], ("there is no such session here", "--script SCRIPT")),
        (["ledger", "verify", "--state", "nowhere"], ("nowhere",)),
        (["ledger", "compare", "nowhere.jsonl", "--state", "clinic/state"], ("nowhere.jsonl", "comity ledger export")),
        (["gc", "--state", "clinic/node.toml"], ("node.toml",)),
        (["bench", "startp"], ("did you mean startup?",)),
    ],
    ids=" ".join,
)
def test_one_line_says_what_is_wrong(
    node: Path, comity: Any, typed: Any, arguments: list[str], parts: tuple[str, ...]
) -> None:
    (node.parent / "picture.toml").write_bytes(b"\x89PNG\r\n")
    (node.parent / "broken.toml").write_text("[session")
    # What configures the process's log does so in a process of its own.
    run = comity if arguments[0] in {"node", "offline"} else typed
    line = run.fails(*arguments, cwd=node.parent, code=2)
    assert "expected" in line
    assert "; " in line
    for part in parts:
        assert part in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["node", "learner"], ("node.toml cannot be read", "received nothing")),
        (["node", "learner", "--config", "clinic"], ("clinic cannot be read", "received a folder")),
        (["node", "provider", "--config", "clinic/node.toml"], ("listen is missing",)),
        (["node", "learner", "--config", "hospital/node.toml"], ("peers",)),
    ],
    ids=" ".join,
)
def test_a_daemon_that_cannot_start_says_why(
    node: Path, comity: Any, arguments: list[str], parts: tuple[str, ...]
) -> None:
    done = comity(*arguments, cwd=node.parent)
    assert done.returncode == 2, done.stderr
    (line,) = [each for each in done.stderr.splitlines() if each.startswith((f"{arguments[1]}_node: ", "comity: "))]
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in line


@pytest.mark.slow
def test_a_port_in_use(node: Path, comity: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name, option in (("COMITY_NODE_LISTEN", "provider"), ("COMITY_NODE_CONTROL__LISTEN", "learner")):
            folder = "hospital" if option == "provider" else "clinic"
            done = comity("node", option, "--config", f"{folder}/node.toml", cwd=node.parent, **{name: address})
            assert done.returncode == 2, done.stderr
            assert f"cannot listen: expected a free address of this machine, received {address}" in done.stderr


# --- Interrupts ---------------------------------------------------------------------------------------------------------


class Slow(control_pb2_grpc.ControlServicer):
    """A node that takes its time over everything; it says when it was asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.over = threading.Event()

    def _wait(self, context: grpc.ServicerContext) -> None:
        self.asked.set()
        self.over.wait(60)
        context.abort(grpc.StatusCode.UNAVAILABLE, "over")

    def Run(self, request: pb.RunRequest, context: grpc.ServicerContext) -> pb.RunReply:  # noqa: N802
        """Does not get as far as to say what the session is called."""
        self._wait(context)
        return pb.RunReply()

    def ListSessions(self, request: pb.ListSessionsRequest, context: grpc.ServicerContext) -> pb.ListSessionsReply:  # noqa: N802
        """Does not get as far as to list them."""
        self._wait(context)
        return pb.ListSessionsReply()


@contextmanager
def slow(folder: Path) -> Iterator[Slow]:
    """A control socket at which nothing is answered."""
    servicer = Slow()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    control_pb2_grpc.add_ControlServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{folder / 'control.sock'}")
    server.start()
    try:
        yield servicer
    finally:
        servicer.over.set()
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "session.toml"], "whether the session began, comity sessions tells"),
        (["sessions"], ""),
        (["watch"], ""),
        (["show"], ""),
    ],
    ids=" ".join,
)
def test_an_interrupt_before_the_node_has_answered(
    short_path: Path, comity: Any, arguments: list[str], told: str
) -> None:
    (short_path / "session.toml").write_text(SESSION)
    with slow(short_path) as servicer, comity.begun(*arguments, cwd=short_path) as (process, _):
        assert servicer.asked.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        lines = process.stderr.read()
    assert "Traceback" not in lines
    assert told in lines


def test_an_interrupt_while_the_command_is_still_loading(short_path: Path, comity: Any) -> None:
    """In the middle of importing torch, where most of a simulation's first seconds go."""
    fifo = short_path / "session.toml"
    os.mkfifo(fifo)
    with comity.begun("simulate", "nowhere.toml", cwd=short_path) as (process, _):
        until_imported = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and "libtorch" not in until_imported.read_text():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in {130, 2}
        assert "Traceback" not in process.stderr.read()


# --- Completion -----------------------------------------------------------------------------------------------------------


def test_a_completion_script_is_printed(short_path: Path, comity: Any) -> None:
    # The shell that it is for is the one that asks; with one command alone it would be gone by then.
    done = comity("-c", "comity --show-completion; exit $?", cwd=short_path, executable=Path("/bin/bash"))
    assert done.returncode == 0, done.stderr
    assert "_COMITY_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("comity led", "ledger"), ("comity ledger ver", "verify"), ("comity run --rou", "--rounds")],
)
def test_what_is_begun_is_completed(short_path: Path, comity: Any, typed: str, completed: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = comity(cwd=short_path, _COMITY_COMPLETE="complete_bash", **words)
    assert done.stdout.split() == [completed], done.stderr
