"""Two organisations that share nothing but their cards, as their operators set them up, one command after another."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from comity.transport.cards import fingerprint, read_card, spelled
from comity.transport.certificates import self_signed

ANY_PORT = "127.0.0.2:0"
"""An address that stands in no certificate."""


@dataclass
class Organisations:
    """A hospital and a clinic, each in a folder of its own, with their nodes running.

    Attributes:
        comity: The command.
        root: Where both folders are.
        hospital: The hospital's node; trusts nobody at first.
        clinic: The clinic's.
        address: Where the hospital listens.
        made: What `comity init` said, by party.
    """

    comity: Any
    root: Path
    hospital: Any
    clinic: Any
    address: str
    made: dict[str, dict[str, Any]]

    def script(self, session: str) -> Path:
        """The session that `comity init` wrote, with an id and two rounds."""
        text = (self.root / "clinic" / "session.toml").read_text()
        path = self.root / f"{session}.toml"
        path.write_text(text.replace("rounds = 10", f'rounds = 2\nid = "{session}"'))
        return path

    def run(self, session: str) -> dict[str, Any]:
        """Runs a session to its end."""
        result: dict[str, Any] = self.comity.json(
            "run", self.script(session), "--node", self.root / "clinic" / "state", cwd=self.root
        )
        return result

    def fails(self, session: str, code: int) -> str:
        """Runs a session that ends with an error; what it says."""
        line: str = self.comity.fails(
            "run", self.script(session), "--node", self.root / "clinic" / "state", cwd=self.root, code=code
        )
        return line

    def trust(self, party: str, card: Path, *more: object, at: str) -> dict[str, Any]:
        """Takes a card at one of them."""
        taken: dict[str, Any] = self.comity.json("trust", "add", party, card, "--node", at, *more, cwd=self.root)
        return taken


@pytest.fixture(scope="module")
def pair(comity: Any, typed: Any, hand: Any) -> Iterator[Organisations]:
    with TemporaryDirectory(prefix="e2e-") as folder:
        root = Path(folder)
        made = {
            "hospital": typed.json(
                *("init", "provider", "hospital", "--party", "hospital", "--listen", ANY_PORT, "--allow", "clinic"),
                cwd=root,
            ),
            "clinic": typed.json(
                "init", "learner", "clinic", "--party", "clinic", "--peer", "hospital=127.0.0.2:1", cwd=root
            ),
        }
        # All that goes from one to the other.
        for party in made:
            shutil.copy(root / party / f"{party}.pem", root / f"{party}.pem")
        hospital = hand.start(node("provider", root / "hospital"), root / "hospital")
        address = hand.ready(hospital)
        comity.json(*("trust", "add", "hospital", "hospital.pem", "--node", "clinic", "--address", address), cwd=root)
        clinic = hand.start(node("learner", root / "clinic"), root / "clinic")
        hand.ready(clinic)
        yield Organisations(comity, root, hospital, clinic, address, made)
        for each in (clinic, hospital):
            each.terminate(15)


def node(role: str, folder: Path) -> list[object]:
    return [sys.executable, "-m", f"{role}_node", "--config", folder / "node.toml"]


def test_a_node_that_trusts_nobody_runs_and_says_so(pair: Organisations) -> None:
    assert pair.hospital.logged("no-party-is-trusted", action="add a party with comity trust add PARTY FILE")


def test_a_clinic_that_is_not_known_is_turned_away_until_its_card_is_taken(pair: Organisations) -> None:
    line = pair.fails("early", 1)
    assert "hospital does not accept our certificate" in line
    assert "comity trust add" in line
    taken = pair.trust("clinic", pair.root / "clinic.pem", at="hospital")
    assert taken["new"]
    assert taken["fingerprint"] == pair.made["clinic"]["fingerprint"]
    assert taken["receipt_key"] == pair.made["clinic"]["receipt_key"]
    # The hospital's node runs on.
    result = pair.run("first")
    assert (result["rounds"], result["ledger_verified"]) == (2, True)
    for party in ("hospital", "clinic"):
        ledger = pair.comity.json("ledger", "verify", "--state", pair.root / party / "state", cwd=pair.root)
        assert ledger


def test_another_receipt_key_is_refused_by_the_one_that_helps(pair: Organisations) -> None:
    pair.trust("clinic", pair.root / "clinic.pem", at="hospital")
    pair.trust("clinic", with_other_key(pair, "clinic"), "--replace", at="hospital")
    line = pair.fails("other-key-asks", 1)
    assert "clinic signs with another key than the one on its card" in line
    pair.trust("clinic", pair.root / "clinic.pem", "--replace", at="hospital")
    pair.run("right-key-asks")


def test_another_receipt_key_is_refused_by_the_one_that_asks(pair: Organisations) -> None:
    pair.trust("clinic", pair.root / "clinic.pem", at="hospital")
    pair.trust("hospital", with_other_key(pair, "hospital"), "--replace", at="clinic")
    line = pair.fails("other-key-helps", 1)
    assert "hospital signs with another key than the one on its card" in line
    pair.trust("hospital", pair.root / "hospital.pem", "--replace", at="clinic")


def with_other_key(pair: Organisations, party: str) -> Path:
    """A party's card with its certificate and somebody's key."""
    card = read_card(pair.root / f"{party}.pem")
    path = pair.root / f"{party}-other.pem"
    path.write_bytes(
        replace(card, receipt_key="d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").to_pem()
    )
    return path


def test_those_who_are_trusted_are_listed(pair: Organisations) -> None:
    (listed,) = pair.comity.json("trust", "list", "--node", "clinic", cwd=pair.root)["trusted"]
    shown = spelled(fingerprint(read_card(pair.root / "hospital.pem").certificates[0]))
    assert (listed["party"], listed["standing"], listed["fingerprint"]) == ("hospital", "good", shown)
    text = pair.comity("trust", "list", "--node", "clinic", cwd=pair.root).stdout
    assert shown in text, "whole, for people to compare"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init", "provder", "new", "--party", "hospital"], "no such role"),
        (["init", "learner", "new", "--party", "x", "--peer", "hospital"], "expected NAME=HOST:PORT"),
        (["init", "operator", "new", "--party", "x", "--allow", "y"], "an operator has no node"),
        (["init", "provider", "there", "--party", "x"], "is there already"),
        (["trust", "add", "x", "none.pem", "--node", "there"], "received nothing"),
        (["trust", "add", "x", "key.pem", "--node", "there"], "PRIVATE KEY"),
        (["trust", "add", "x", "text.pem", "--node", "there"], "something else"),
        (["trust", "add", "x", "text.pem", "--node", "elsewhere"], "no node is configured"),
        (["trust", "list", "--node", "elsewhere"], "no node is configured"),
    ],
)
def test_what_is_typed_wrong_is_one_line(typed: Any, short_path: Path, arguments: list[str], words: str) -> None:
    (short_path / "there" / "trust").mkdir(parents=True)
    (short_path / "there" / "node.toml").write_text('party = "hospital"\n')
    (short_path / "key.pem").write_bytes(self_signed("x")[1])
    (short_path / "text.pem").write_text("Dear hospital, my card is attached.\n")
    done = typed(*arguments, "--json", cwd=short_path)
    assert done.returncode == 2
    assert done.stderr.startswith("comity: ")
    assert done.stderr.count("\n") == 1
    assert words in json.loads(done.stdout)["message"]
    assert not (short_path / "new").exists()


@pytest.mark.slow
def test_what_comes_next_is_said(comity: Any, short_path: Path) -> None:
    done = comity("init", "learner", ".", "--party", "clinic", cwd=short_path)
    assert done.returncode == 0
    assert "comity trust add PARTY PARTY.pem --address HOST:PORT" in done.stdout
    assert "send clinic.pem" in done.stdout
    assert read_card(short_path / "clinic.pem").receipt_key is not None
    made = comity.json("init", "operator", "alice", "--party", "alice", cwd=short_path)
    assert made["receipt_key"] is None
    taken = comity.json("trust", "add", "alice", "alice/alice.pem", "--operator", cwd=short_path)
    assert taken["operator"]
