"""What a node finds on its own machine, each broken on purpose."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from comity.cli.main import main
from comity.ledger.ledger import Fact
from comity.node.config import NodeConfig, load_config
from comity.node.control_client import ControlClient
from comity.node.daemon import Node
from comity.node.garbage import exclusive, is_occupied, marked_running
from comity.node.preflight import CHECKS
from comity.store.places import FILE_NAME, store_url
from comity.store.sql_store import SqlStore

SESSION = """
[session]
protocol = "teacher_votes"
acceptors = ["hospital"]
rounds = 2
[session.models.student]
name = "mlp"
options = { hidden = 8 }
[session.terms]
queries = 5
"""


def test_nothing_is_wrong_with_a_teacher(teacher: Any) -> None:
    found = teacher.check(script=SESSION)
    assert found.code == 0
    assert not found.failed()
    assert found["role"].found == "teacher, as its configuration says"
    assert "200 samples of 1×8×8 to train on, 450 to test on, 10 classes" in found["data"].found
    assert found["peers"].verdict == "skipped"
    assert found["model"].verdict == "passed"


def test_nothing_is_wrong_with_a_student(student: Any) -> None:
    found = student.check(script=SESSION)
    assert found.code == 0
    assert not found.failed()
    assert found["role"].found == "student, as its configuration says"
    assert found["listen"].verdict == "skipped"
    assert "room for the session's 0.0 MB" in found["model"].found


def test_nothing_is_left_behind(teacher: Any) -> None:
    teacher.check()
    before = {path: path.stat().st_mtime_ns for path in teacher.folder.rglob("*") if path.name != "node.toml"}
    teacher.check(script=SESSION)
    after = {path: path.stat().st_mtime_ns for path in teacher.folder.rglob("*") if path.suffix != ".toml"}
    assert after == {path: changed for path, changed in before.items() if path in after}
    assert not (teacher.folder / "state").exists()


# --- Configuration and role -----------------------------------------------------------------------------------------------


def test_a_kind_of_egress_that_nothing_has_is_told(teacher: Any) -> None:
    teacher.values["policy"] |= {"egress": ["contract", "checkpont"]}
    row = teacher.check()["configuration: egress"]
    assert (row.verdict, row.action) == ("warning", "did you mean checkpoint?")
    assert "checkpont" in row.found


def test_a_protocol_of_the_policy_that_there_is_not_is_told_and_hyphens_are_taken(teacher: Any) -> None:
    teacher.values["policy"] |= {"protocols": ["teacher-votes", "teacher_votse"]}
    found = teacher.check(script=SESSION)
    row = found["configuration: protocols"]
    assert (row.verdict, row.action) == ("warning", "did you mean teacher_votes?")
    assert found["script"].verdict == "passed"


def test_a_limit_on_an_optimizer_that_there_is_not_is_refused(teacher: Any) -> None:
    teacher.values["privacy"] = {"max_learning_rate": {"adm": 0.1}}
    teacher.check().only("configuration", "privacy.max_learning_rate has a name", "'adam' or 'sgd', received 'adm'")


def test_models_and_weights_of_the_configuration_are_looked_for_without_a_script(teacher: Any) -> None:
    teacher.folder.mkdir(exist_ok=True)
    save_file({"weight": torch.zeros(2)}, teacher.folder / "there.safetensors")
    (teacher.folder / "none.safetensors").write_text("no tensors")
    teacher.values["models"] = {
        "net": "python:comity.models.lenet5:lenet5",
        "code": "python:nowhere.to_be_found:net",
        "other": "onnx:gone.onnx",
        "folder": "hf:gone",
    }
    files = ("there", "gone", "none")
    teacher.values["weights"] = {name: f"{name}.safetensors" for name in files}
    found = teacher.check()
    assert found.failed() == ["model code", "model other", "model folder", "weights gone", "weights none"]
    assert (found["model net"].verdict, found["weights there"].verdict) == ("passed", "passed")
    assert "1 tensors" in found["weights there"].found
    assert "gone.safetensors" in found["weights gone"].found
    assert "no safetensors file" in found["weights none"].found
    assert "gone.onnx" in found["model other"].found


def test_a_configuration_that_cannot_be_read_stops_only_what_needs_it(teacher: Any) -> None:
    teacher.values["policy"] |= {"max_round": 3}
    found = teacher.check()
    found.only("configuration", "unknown key policy.max_round", "did you mean max_rounds?")
    assert {row.check for row in found.rows} == set(CHECKS) - {"session"}
    assert all(row.verdict == "skipped" for row in found.rows if row.check not in {"configuration", "protocols"})


def test_what_the_environment_says_is_named_but_not_shown(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_NODE_SECRET", "hunter2")
    found = teacher.check()
    assert "COMITY_NODE_SECRET over it" in found["configuration"].found
    assert "hunter2" not in str(found.rows)
    monkeypatch.setenv("COMITY_NODE_DRAIN_S", "-1")
    teacher.check().only("configuration", "drain_s", "greater than or equal to 0")


def test_a_role_of_the_configuration_that_nobody_knows(teacher: Any) -> None:
    teacher.values["role"] = "techer"
    found = teacher.check()
    assert (found["role"].verdict, found.code) == ("failed", 2)
    assert "received techer" in found["role"].found
    assert "did you mean teacher?" in found["role"].action


def test_a_role_that_nobody_knows(teacher: Any) -> None:
    found = teacher.check(role="doctor")
    assert found["role"].verdict == "failed"
    known = {"learner", "provider", "client", "server", "student", "teacher"}
    assert known <= set(found["role"].found.replace(",", "").split())
    assert "received doctor" in found["role"].found
    assert found.code == 2


# --- Folder, store, disk --------------------------------------------------------------------------------------------------


def test_a_state_dir_that_cannot_be_written(teacher: Any) -> None:
    # In what is no folder, where root cannot write either.
    teacher.values["state_dir"] = "tls/key.pem/state"
    teacher.check().only("state_dir", "expected a writable folder, received ", "Not a directory", "make it writable")


def test_a_state_dir_with_too_long_a_path(teacher: Any) -> None:
    teacher.values["state_dir"] = "s" * 100
    teacher.check().only("state_dir", "at most 100 characters", "shorter path")


def test_a_state_dir_in_memory(teacher: Any) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm here")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        teacher.values["state_dir"] = folder
        found = teacher.check()
    assert found["state_dir"].verdict == "warning"
    assert "in memory (tmpfs)" in found["state_dir"].found
    assert found.code == 0


def test_a_state_dir_that_another_process_uses(teacher: Any) -> None:
    with exclusive(teacher.state):
        teacher.check().only("state_dir", "another process works in this state_dir", "use another state_dir")
    assert "not in use" in teacher.check()["state_dir"].found


def test_a_node_that_does_not_answer(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.node.preflight.context._ANSWERS_S", 0.1)
    with exclusive(teacher.state), marked_running(teacher.state):
        found = teacher.check(role="teacher")
    assert "the node that works in this state_dir does not answer" in found["state_dir"].found
    assert "try again" in str(found["state_dir"])


def test_a_node_that_answers_late_is_waited_for(teacher: Any) -> None:
    with running(teacher, "teacher"):
        # As that of a node that is just starting: its socket comes after its lock.
        socket = teacher.state / "control.sock"
        away = socket.rename(socket.with_suffix(".away"))
        late = threading.Timer(1.0, away.rename, [socket])
        late.start()
        try:
            found = teacher.check(role="teacher")
        finally:
            late.join()
        assert not found.failed()
        assert "where the node runs as process" in found["state_dir"].found


def test_whoever_looks_keeps_no_node_from_starting(teacher: Any) -> None:
    teacher.check()
    assert not is_occupied(teacher.state)
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            is_occupied(teacher.state)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            with exclusive(teacher.state):
                assert is_occupied(teacher.state)
    finally:
        done.set()
        looking.join()


@contextmanager
def running(home: Any, role: str) -> Iterator[None]:
    """The node itself, at work in this process."""
    home.check()
    config = load_config(NodeConfig, home.folder / "node.toml")
    stop, failures = threading.Event(), []

    def serve() -> None:
        try:
            Node(role, config).serve(stop)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        while not config.control_socket.exists():
            thread.join(0.02)
            assert thread.is_alive(), failures
        with ControlClient(f"unix:{config.control_socket}") as control:
            while not control.describe().address:
                thread.join(0.02)
        yield
    finally:
        stop.set()
        thread.join()


def test_a_node_that_runs_is_no_failure(teacher: Any) -> None:
    with running(teacher, "teacher"):
        found = teacher.check(role="teacher")
        assert not found.failed()
        assert "where the node runs as process" in found["state_dir"].found
        assert "the node listens at 127.0.0.1:" in found["listen"].found
        assert teacher.check()["role"].found == "teacher, as the node that runs"
        mistaken = teacher.check(role="student")
        assert "expected student, received teacher" in mistaken["role"].found
        teacher.values["party"] = "bank"
        found = teacher.check()
        assert found["state_dir"].verdict == "failed"
        assert "expected bank, received hospital, process" in found["state_dir"].found


def test_a_store_that_is_none(teacher: Any) -> None:
    (teacher.state / FILE_NAME).write_bytes(b"no database" * 1000)
    found = teacher.check().only("store", FILE_NAME)
    assert "unexpected" not in found.found


def recorded(home: Any, **options: Any) -> Path:
    with closing(SqlStore(store_url(home.state), durable=False, **options)) as store:
        store.record(Fact("ended", "s-1", peer="clinic"))
        store.record(Fact("ended", "s-2", peer="clinic"))
    path: Path = home.state / FILE_NAME
    return path


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()


def test_a_store_of_a_later_version(teacher: Any) -> None:
    change(recorded(teacher), "UPDATE meta SET value = '999' WHERE key = 'schema'")
    teacher.check().only("store", "received schema 999", "upgrade comity")


def test_a_ledger_that_does_not_hold(teacher: Any) -> None:
    path = recorded(teacher)
    assert "6 entries that holds" in teacher.check()["store"].found
    change(path, "UPDATE ledger SET peer = 'bank' WHERE position = 1")
    assert "ledger entry 1" in teacher.check()["store"].found
    assert teacher.check().code == 2


def test_a_clock_behind_the_ledger(teacher: Any) -> None:
    recorded(teacher, clock=lambda: datetime.now(UTC) + timedelta(hours=1))
    teacher.check().only("store", "the clock is behind the ledger's last entry", "set the clock")


def test_a_store_that_cannot_be_anywhere(teacher: Any) -> None:
    teacher.values["store"] = "mysql://somewhere/comity"
    assert teacher.check().failed() == ["store"]


def test_a_database_that_does_not_answer(teacher: Any) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        teacher.values["store"] = f"postgresql://comity:hunter2@127.0.0.1:{held.getsockname()[1]}/comity"
        found = teacher.check()
    found.only("store", "postgresql+psycopg://comity:***@127.0.0.1")
    assert "hunter2" not in str(found.rows)


@pytest.mark.parametrize("url", ["hunter2 no url", "://comity:hunter2@/"])
def test_a_store_whose_url_cannot_be_read_shows_no_password(teacher: Any, url: str) -> None:
    teacher.values["store"] = url
    row = teacher.check().only("store", "a store's URL cannot be read", "correct `store`")
    assert "comity:hunter2" not in row.found


def test_a_store_that_was_only_begun(teacher: Any) -> None:
    (teacher.state / FILE_NAME).touch()
    assert "is empty; the node makes its tables" in teacher.check()["store"].found


def test_a_full_quota(teacher: Any) -> None:
    folder = teacher.state / "blobs" / "s-1"
    folder.mkdir(parents=True)
    (folder / "blob").write_bytes(bytes(2_000_000))
    teacher.values["policy"] |= {"max_state_bytes": 2_000_001}
    assert teacher.check()["disk"].verdict == "passed"
    teacher.values["policy"] |= {"max_state_bytes": 2_000_000}
    teacher.check().only("disk", "2.0 MB kept, policy.max_state_bytes is 2.0 MB", "comity gc")


def test_a_device_that_this_machine_lacks(teacher: Any) -> None:
    teacher.values["device"] = "cuda:97"
    found = teacher.check(script=SESSION)
    found.only("device", "received cuda:97", "set device = 'auto'")
    assert [row.verdict for row in found.rows if row.check == "script"] == ["passed", "skipped"]


# --- Listening ------------------------------------------------------------------------------------------------------------


def test_an_address_in_use(teacher: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        teacher.values["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        teacher.check().only("listen", "in use", "stop what listens there")


@pytest.mark.parametrize(
    ("listen", "parts"),
    [
        ("192.0.2.1:5500", ("Cannot assign requested address", "0.0.0.0:5500")),
        ("127.0.0.1", ("expected host:port",)),
    ],
)
def test_an_address_that_is_not_ours(teacher: Any, listen: str, parts: tuple[str, ...]) -> None:
    teacher.values["listen"] = listen
    teacher.check().only("listen", *parts)


def test_a_teacher_that_listens_nowhere(teacher: Any) -> None:
    del teacher.values["listen"]
    teacher.check(role="teacher").only("listen", "listen is missing", "must be reachable")


def test_plaintext_beyond_this_machine(teacher: Any) -> None:
    del teacher.values["tls"]
    teacher.values |= {"insecure": True, "listen": "0.0.0.0:0"}
    found = teacher.check()
    found.only("listen", "plaintext is for loopback only", "configure [tls]")
    assert [found[name].verdict for name in ("keys", "certificate", "trust")] == ["skipped"] * 3


# --- Data and scripts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data": {"source": "diggits"}}, ("'diggits'", "did you mean 'digits'?")),
        ({"data": {"source": "npz:nowhere.npz"}}, ("nowhere.npz",)),
        (
            {"data": {"source": "digits", "per_class": 2}, "policy": {"min_samples": 21}},
            ("expected at least 21, received 20", "use more data"),
        ),
    ],
)
def test_data_that_cannot_be_used(teacher: Any, changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    teacher.values |= changes
    row = teacher.check()["data"]
    assert row.verdict == "failed"
    for part in parts:
        assert part in f"{row.found}; {row.action}"


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("[session", ("is no TOML",)),
        (SESSION.replace('"mlp"', '"mpl"'), ("'mpl'", "did you mean 'mlp'?")),
        (SESSION.replace("rounds = 2", "rounds = 20"), ("policy.max_rounds", "received 20", "buy fewer rounds")),
        (SESSION.replace('["hospital"]', '["bank"]'), ("received bank", "another script")),
        (SESSION.replace("hidden", "hiden"), ("hiden", "options")),
        (SESSION + '[party.clinic]\nrole="student"\n[party.clinic.data]\nsource="digits"', ("[party.clinic]",)),
    ],
)
def test_a_script_that_the_node_cannot_run(teacher: Any, script: str, parts: tuple[str, ...]) -> None:
    teacher.values["policy"] |= {"max_rounds": 10}
    found = teacher.check(script=script)
    assert found.failed() == ["script"]
    for part in parts:
        assert part in f"{found['script'].found}; {found['script'].action}"


def test_an_acceptor_that_the_student_has_no_address_of(student: Any) -> None:
    found = student.check(script=SESSION.replace('["hospital"]', '["bank"]'))
    found.only("script", "expected hospital, received bank", "configure [peers.bank]")


def test_a_session_that_there_is_no_room_for(teacher: Any) -> None:
    teacher.values["policy"] |= {"max_state_bytes": 1000}
    found = teacher.check(script=SESSION)
    assert found.failed() == ["script"]
    row = next(row for row in found.rows if row.verdict == "failed")
    assert "no room for the session" in row.found
    assert "policy.max_state_bytes" in row.action


def test_a_failure_that_nobody_thought_of_is_a_row(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: object) -> Iterator[Any]:
        raise ZeroDivisionError("in the\nmiddle")
        yield

    monkeypatch.setattr("comity.node.preflight.computing.check_device", broken)
    found = teacher.check()
    found.only("device", "ZeroDivisionError: in the middle")
    assert found["data"].verdict == "passed"


# --- The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`comity check` in this process: its exit code, and what it prints."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["comity", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


def test_the_command_prints_a_line_for_each_row(teacher: Any, typed: Callable[..., tuple[int, str]]) -> None:
    rows = teacher.check().rows
    code, printed = typed("--config", teacher.folder / "node.toml")
    lines = printed.splitlines()
    assert code == 0
    assert [line[:2] for line in lines[: len(rows)]] == [
        {"passed": "✓ ", "warning": "! ", "failed": "✗ ", "skipped": "– "}[row.verdict] for row in rows
    ]
    assert len({line.index(row.found) for line, row in zip(lines, rows, strict=False)}) == 1
    counted = Counter(row.verdict for row in rows)
    assert counted["failed"] == 0
    assert lines[len(rows) :] == [", ".join(f"{counted[each]} {each}" for each in ("passed", "warning", "skipped"))]


def test_the_command_gives_one_json_object(teacher: Any, typed: Callable[..., tuple[int, str]]) -> None:
    teacher.values["device"] = "abacus"
    teacher.check()
    code, printed = typed("teacher", "--config", teacher.folder / "node.toml", "--json")
    told = json.loads(printed)
    assert (code, told["ok"]) == (2, False)
    (failed,) = [row for row in told["rows"] if row["verdict"] == "failed"]
    assert failed["check"] == "device"
    assert failed["action"] == "set device = 'auto'"


def test_a_terminal_shows_a_table(
    teacher: Any, typed: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    rows = teacher.check().rows
    code, printed = typed("--config", teacher.folder / "node.toml")
    assert code == 0
    assert "what to do" in printed
    for row in rows:
        assert row.found in printed
