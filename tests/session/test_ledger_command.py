"""`comity ledger`, as it is typed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comity.cli.main import main
from comity.ledger.ledger import Fact, in_round
from comity.ledger.receipts import SignedStatement, Signer
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

CONTRACT = "c" * 64


@pytest.fixture
def states(tmp_path: Path) -> dict[str, Path]:
    """The `state_dir` of two nodes that have had a session of two rounds; the one has had another with somebody else."""
    folders = {name: tmp_path / name for name in ("clinic", "hospital")}
    for folder in folders.values():
        folder.mkdir()
    with (
        closing(SqlStore(store_url(folders["clinic"]), durable=False)) as clinic,
        closing(SqlStore(store_url(folders["hospital"]), durable=False)) as hospital,
    ):
        hospital.record(Fact("ended", "s-0", peer="third"))
        play({"clinic": clinic, "hospital": hospital})
    return folders


def play(stores: dict[str, SqlStore]) -> None:
    signers = {name: Signer.from_seed(name.encode().ljust(32), name) for name in stores}
    members = [{"party": name, "receipt_key": signer.public_key} for name, signer in signers.items()]
    peers = {"clinic": "hospital", "hospital": "clinic"}

    def sign(name: str, kind: Any, round: int) -> None:
        head = stores[name].head("s-1", peers[name])
        signed = signers[name].state(kind, "s-1", CONTRACT, in_round(round), f"{round:064x}", head)
        keep(name, signed, "sent")
        keep(peers[name], signed, "received")

    def keep(name: str, signed: SignedStatement, direction: Any) -> None:
        statement = signed.statement
        place = (statement.session, statement.units, peers[name], direction, None, statement.kind)
        stores[name].record(Fact("receipt", *place, 0, signed.to_json()))

    for name, store in stores.items():
        body: dict[str, Any] = {"contract": CONTRACT, "members": members}
        store.record(Fact("opened", "s-1", peer=peers[name], body=body))
    for round in (1, 2):
        crossing = ("checkpoint", f"{round:064x}", 123456)
        stores["clinic"].record(Fact("intended", "s-1", in_round(round), "hospital", "sent", *crossing))
        stores["clinic"].record(Fact("delivered", "s-1", in_round(round), "hospital", "sent", *crossing))
        stores["hospital"].record(Fact("delivered", "s-1", in_round(round), "clinic", "received", *crossing))
        sign("clinic", "request", round)
        sign("hospital", "receipt", round)


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    error: str


Command = Callable[..., Done]


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["comity", "ledger", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        return Done(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def edit(state: Path, statement: str) -> None:
    with closing(sqlite3.connect(state / "comity.db")) as connection, connection:
        connection.execute(statement)


def test_show(ledger: Command, states: dict[str, Path]) -> None:
    done = ledger("show", "--state", states["clinic"])
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "entry",
        "time",
        "(UTC)",
        "session",
        "units",
        "what",
        "peer",
        "direction",
        "kind",
        "subject",
        "bytes",
    ]
    # After what the node's own chain says of the session's.
    assert lines[4].split()[3:] == [
        "s-1",
        "round",
        "1",
        "delivered",
        "hospital",
        "sent",
        "checkpoint",
        "0000000000000000…",
        "123,456",
    ]
    assert "session s-1: 2 rounds charged" in lines
    assert any(line.split() == ["checkpoint", "246,912", "0"] for line in lines)
    assert lines[-2].startswith("the node's own chain: 1 entry, the last ")
    assert lines[-1].startswith("session s-1 with hospital: 9 entries, the last ")


def test_show_one_session(ledger: Command, states: dict[str, Path]) -> None:
    whole = json.loads(ledger("show", "--state", states["hospital"], "--json").out)
    assert [(each["session"], each["peer"], each["length"]) for each in whole["chains"]] == [
        ("", "", 3),
        ("s-0", "third", 1),
        ("s-1", "clinic", 7),
    ]
    assert len(whole["entries"]) == 11
    done = json.loads(ledger("show", "--state", states["hospital"], "--session", "s-1", "--json").out)
    assert [entry["index"] for entry in done["entries"]] == list(range(7))
    assert (done["sent"], done["received"]) == ({}, {"checkpoint": 246912})
    assert [[each[name] for name in ("unit", "first", "count", "peer")] for each in done["charges"]] == [
        ["round", 1, 1, "clinic"],
        ["round", 2, 1, "clinic"],
    ]


def test_verify(ledger: Command, states: dict[str, Path]) -> None:
    done = ledger("verify", "--state", states["hospital"])
    assert done.code == 0
    assert done.out.startswith(
        "verified: 11 entries in 3 chains, 4 statements, 2 rounds charged; the node's own chain of 3 entries ends in "
    )
    done = ledger("verify", "--state", states["hospital"], "--session", "s-0", "--json")
    counts = json.loads(done.out)
    (chain,) = counts.pop("chains")
    assert chain.pop("hash")
    assert chain == {"session": "s-0", "peer": "third", "length": 1}
    assert counts == {"verified": True, "sessions": 0, "entries": 1, "statements": 0, "charged": {}}


def test_verify_names_the_first_bad_entry(ledger: Command, states: dict[str, Path]) -> None:
    edit(states["clinic"], "UPDATE ledger SET size = 1 WHERE chain = 1 AND position >= 2")
    done = ledger("verify", "--state", states["clinic"])
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith("comity: ledger entry 2 of session s-1 with hospital was changed: ")
    assert done.error.count("\n") == 1
    done = ledger("verify", "--state", states["clinic"], "--json")
    assert done.code == 1
    assert json.loads(done.out)["error"] == "LEDGER_BROKEN"


def test_compare(ledger: Command, states: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    for options in ([], ["--session", "s-1"], ["--peer", "clinic"], ["--session", "s-1", "--peer", "clinic"]):
        exported = ledger("export", "--state", states["hospital"], *options)
        assert exported.code == 0
        assert ("third" in exported.out) == (not options)
        file.write_text(exported.out, encoding="utf-8")
        done = ledger("compare", file, "--state", states["clinic"])
        assert (done.code, done.out) == (0, "1 session compared: the ledgers agree\n")


def test_compare_finds_differences(ledger: Command, states: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    file.write_text(ledger("export", "--state", states["hospital"]).out, encoding="utf-8")
    with closing(SqlStore(store_url(states["clinic"]))) as store:
        store.record(Fact("intended", "s-1", in_round(3), "hospital", "sent", "loss", "\x1b[31m", 8))
        store.record(Fact("delivered", "s-1", in_round(3), "hospital", "sent", "loss", "\x1b[31m", 8))
    done = ledger("compare", file, "--state", states["clinic"])
    assert done.code == 1
    # Nothing that a ledger holds steers the terminal.
    assert done.out.splitlines() == [
        "session s-1, round 3: loss �[31m: ours sent 8 bytes, theirs not received",
        "1 session compared: 1 difference",
    ]
    done = ledger("compare", file, "--state", states["clinic"], "--json")
    assert done.code == 1
    assert json.loads(done.out)["differences"][0]["first"] == 3


def test_compare_with_a_broken_ledger(ledger: Command, states: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    edit(states["hospital"], "UPDATE ledger SET first = 7 WHERE chain = 2 AND position = 2")
    file.write_text(ledger("export", "--state", states["hospital"]).out, encoding="utf-8")
    done = ledger("compare", file, "--state", states["clinic"])
    assert done.code == 1
    assert "theirs.jsonl: ledger entry 2 of session s-1 with clinic was changed" in done.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--state", "nowhere"], "there is no store at nowhere/comity.db"),
        (["show", "--state", "STATE", "--session", "s-9"], "no such session: expected s-1, received s-9"),
        (
            ["export", "--state", "STATE", "--peer", "third"],
            "nothing with such a party: expected hospital, received third",
        ),
        (["verify", "--store", "mysql://x/y"], "a store cannot be there"),
        (["compare", "nowhere", "--state", "STATE"], "nowhere cannot be read"),
        (["compare", "STATE/comity.db", "--state", "STATE"], "comity.db cannot be read"),
    ],
)
def test_wrong_use_is_one_line(ledger: Command, states: dict[str, Path], arguments: list[str], message: str) -> None:
    done = ledger(*(each.replace("STATE", str(states["clinic"])) for each in arguments))
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert done.error.count("\n") == 1


def test_a_ledger_with_nobody_in_common(ledger: Command, states: dict[str, Path], tmp_path: Path) -> None:
    with closing(SqlStore(store_url(tmp_path))) as store:
        store.record(Fact("ended", "s-7", peer="fourth"))
    file = tmp_path / "theirs.jsonl"
    file.write_text(ledger("export", "--state", tmp_path).out, encoding="utf-8")
    done = ledger("compare", file, "--state", states["clinic"])
    assert (done.code, "no session in common" in done.error) == (2, True)


def test_it_looks_on_while_the_node_works(ledger: Command, states: dict[str, Path]) -> None:
    def entries() -> int:
        return json.loads(ledger("verify", "--state", states["clinic"], "--json").out)["entries"]

    with closing(SqlStore(store_url(states["clinic"]))) as store, store.transaction():
        store.record(Fact("ended", "s-1", peer="hospital"))
        assert entries() == 10
    assert entries() == 12


def test_a_removed_session_shows(ledger: Command, states: dict[str, Path]) -> None:
    for table in ("ledger", "chains"):
        edit(states["hospital"], f"DELETE FROM {table} WHERE chain = 1")
    done = ledger("verify", "--state", states["hospital"])
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith(
        "comity: the ledger's chain of session s-0 with third is missing: expected what entry 0 of"
    )


def test_it_needs_no_torch(states: dict[str, Path]) -> None:
    code = (
        "import sys; from comity.cli.ledger import verify_ledger; from comity.node.operating import NodeChoice; from pathlib import Path;"
        f"verify_ledger(NodeChoice(state=Path({str(states['clinic'])!r})), '', '', as_json=False);"
        "sys.exit(','.join({'torch', 'grpc', 'numpy'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
