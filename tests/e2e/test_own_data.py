"""Two organisations with tables of their own, from `comity init --data csv:…` to a model, as `docs/your-own-data.md` has it."""

from __future__ import annotations

import csv
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped, unused-ignore]

from tests.e2e.conftest import until

ANY_PORT = "127.0.0.2:0"


def write(path: Path, rows: slice, **change: Any) -> None:
    """Some of the rows of the breast cancer data of Wisconsin, as a table with a column for the diagnosis."""
    found = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in found.feature_names]
    order = change.get("order", range(len(names)))
    called = change.get("called", ("malignant", "benign"))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([names[at] for at in order] + ["diagnosis"])
        for values, label in zip(found.data[rows], found.target[rows], strict=True):
            writer.writerow([values[at] for at in order] + [called[label]])


@dataclass
class Parties:
    """A hospital that helps and a clinic that asks, in folders of their own."""

    comity: Any
    hand: Any
    root: Path
    hospital: Any
    clinic: Any

    def start(self, party: str) -> Any:
        """Starts a party's node, in the place of an earlier one."""
        role = {"hospital": "provider", "clinic": "learner"}[party]
        earlier = getattr(self, party)
        if earlier is not None:
            earlier.terminate(15)
        started = self.hand.start(node(role, self.root / party), self.root / party)
        setattr(self, party, started)
        return self.hand.ready(started)

    def script(self, session: str, **change: str) -> Path:
        """The session that `comity init` wrote, with what a table needs."""
        text = (self.root / "clinic" / "session.toml").read_text()
        for before, after in {
            "rounds = 10": f'rounds = 3\nid = "{session}"',
            "hidden = 64": "hidden = 16",
            "batch_size = 256": "batch_size = 128",
            '# normalization = "computed"': 'normalization = "computed"',
        }.items():
            assert before in text
            text = text.replace(before, after)
        for name, value in change.items():
            text = text.replace(f"\n{name} = ", f"\n{name} = {value} # ")
        path = self.root / f"{session}.toml"
        path.write_text(text)
        return path

    def ask(self, *arguments: object) -> dict[str, Any]:
        """A command at the clinic's node."""
        answer: dict[str, Any] = self.comity.json(*arguments, "--node", self.root / "clinic" / "state", cwd=self.root)
        return answer

    def round(self, session: str) -> int:
        """How many rounds of a session are done."""
        return int(self.ask("show", session)["rounds_finished"])

    def waits(self, session: str, party: str) -> list[str]:
        """The reasons for which a session waits, as a party's node says."""
        shown = self.comity.json("show", session, "--node", self.root / party / "state", cwd=self.root)
        return [each["reason"] for each in shown["waits"]]


def node(role: str, folder: Path) -> list[object]:
    return [sys.executable, "-m", f"{role}_node", "--config", folder / "node.toml"]


@pytest.fixture
def pair(comity: Any, hand: Any) -> Iterator[Parties]:
    with TemporaryDirectory(prefix="e2e-") as folder:
        root = Path(folder)
        write(root / "ours.csv", slice(0, 200))
        write(root / "theirs.csv", slice(200, 569))
        comity.json(
            *("init", "provider", "hospital", "--party", "hospital", "--listen", ANY_PORT, "--allow", "clinic"),
            *("--data", "csv:theirs.csv"),
            cwd=root,
        )
        comity.json(
            *("init", "learner", "clinic", "--party", "clinic", "--peer", "hospital=127.0.0.2:1"),
            *("--data", "csv:ours.csv"),
            cwd=root,
        )
        for party in ("hospital", "clinic"):
            shutil.copy(root / party / f"{party}.pem", root / f"{party}.pem")
        comity.json("trust", "add", "clinic", "clinic.pem", "--node", "hospital", cwd=root)
        parties = Parties(comity, hand, root, None, None)
        address = parties.start("hospital")
        config = root / "hospital" / "node.toml"
        # It keeps its address when it is started again.
        config.write_text(config.read_text().replace(ANY_PORT, address))
        comity.json("trust", "add", "hospital", "hospital.pem", "--node", "clinic", "--address", address, cwd=root)
        parties.start("clinic")
        yield parties
        for each in (parties.clinic, parties.hospital):
            each.terminate(15)


def test_a_table_becomes_a_model_by_three_commands_a_side(pair: Parties) -> None:
    section = tomllib.loads((pair.root / "clinic" / "node.toml").read_text())["data"]
    assert (section["table"]["target"], len(section["table"]["columns"])) == ("diagnosis", 30)
    result = pair.ask("run", pair.script("walk"))
    assert (result["rounds"], result["ledger_verified"]) == (3, True)
    shown = pair.ask("show", "walk")["contract"]["task"]
    assert shown["heads"][0]["labels"] == ["benign", "malignant"]
    assert shown["inputs"]["features"][:2] == ["mean_radius", "mean_texture"]
    assert len(shown["inputs"]["preprocessing"]["mean"]) == 30


def test_data_that_mean_something_else_are_refused_and_data_that_changed_are_waited_for(pair: Parties) -> None:
    # Columns in another order: refused before anything is charged.
    config = pair.root / "clinic" / "node.toml"
    text = config.read_text()
    config.write_text(text.replace('"mean_radius", "mean_texture"', '"mean_texture", "mean_radius"'))
    pair.start("clinic")
    state = pair.root / "clinic" / "state"
    line = pair.comity.fails("run", pair.script("permuted"), "--node", state, cwd=pair.root, code=3)
    assert 'feature 0 is "mean_radius" at hospital and "mean_texture" in the contract' in line
    assert "columns" in line
    config.write_text(text)
    pair.start("clinic")
    pair.ask("run", pair.script("changed", rounds="400"), "--detach")
    for party, table in (("clinic", "ours.csv"), ("hospital", "theirs.csv")):
        before = pair.round("changed")
        until(lambda before=before: pair.round("changed") > before, "a round is done", deadline_s=90)
        kept = (pair.root / table).read_bytes()
        getattr(pair, party).terminate(15)
        write(pair.root / table, slice(0, 190) if party == "clinic" else slice(201, 569))
        pair.start(party)
        until(lambda party=party: "data" in pair.waits("changed", party), "it waits", deadline_s=90)
        done = pair.round("changed")
        (pair.root / table).write_bytes(kept)
        until(lambda done=done: pair.round("changed") > done, "it goes on", deadline_s=90)
    pair.ask("cancel", "changed")
