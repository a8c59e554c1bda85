"""`docs/offline.md`, word for word, with every command a process of its own; those of the first round are killed first."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import tomllib
from pathlib import Path

import pytest

from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from tests.e2e.forked import forked
from tests.e2e.pages import ROOT, blocks, missing, steps

PAGE = ROOT / "docs" / "offline.md"
DRIVE = "/media/drive"
SIDES = {"clinic": "learner", "hospital": "provider"}
KILLS = {
    ("clinic", "export"): "transfer:1",
    ("clinic", "import"): "commit:2",
    ("hospital", "export"): "training:2",
    ("hospital", "import"): "commit:1",
}
"""Where the commands of the first round die."""
FIRST_ROUND = range(5, 9)
ROUND_COMMANDS = 14


def session_text() -> str:
    (block,) = blocks(PAGE, "toml")
    return block.body


@pytest.mark.timeout(300)
def test_the_page_word_for_word(short_path: Path) -> None:
    for side in (*SIDES, "drive"):
        (short_path / side).mkdir()
    for side in SIDES:
        (short_path / side / "state").mkdir()
        # Else it would be another model every time.
        (short_path / side / "state" / "secret").write_text(side)
    (short_path / "clinic" / "session.toml").write_text(session_text())
    rounds = 0
    with forked(short_path) as comity:
        for step in steps(PAGE):
            words = shlex.split(step.line.replace(DRIVE, str(short_path / "drive")))[1:]
            if words[:2] == ["trust", "add"]:
                # They send each other their cards.
                (other,) = set(SIDES) - {step.side}
                shutil.copy(short_path / other / words[-1], short_path / step.side)
            if words[0] == "offline":
                rounds += 1
                if rounds in FIRST_ROUND:
                    code, printed = comity(words, short_path / step.side, COMITY_FAULT=KILLS[step.side, words[1]])
                    assert code == -signal.SIGKILL, printed
            code, printed = comity(words, short_path / step.side)
            assert code == 0, printed
            shown = [each.replace(DRIVE, str(short_path / "drive")) for each in step.shown]
            assert not missing(shown, printed), f"{step.side}$ {step.line}\n{printed}"
        code, exported = comity(["ledger", "export"], short_path / "hospital")
        (short_path / "hospital.jsonl").write_text(exported)
        code, printed = comity(["ledger", "compare", "../hospital.jsonl", "--json"], short_path / "clinic")
        assert (code, json.loads(printed)["differences"]) == (0, []), printed
    assert rounds == ROUND_COMMANDS, "four for the contract and for each round, and two at the end"
    result = json.loads((short_path / "clinic" / "state" / "sessions" / "help-1" / "result.json").read_text())
    parties = "".join(
        f'[party.{side}]\nrole = "{role}"\nsecret = "{side}"\ndata = {{ source = "digits" }}\nprivacy = {{ preset = "guarded" }}\n'
        for side, role in SIDES.items()
    )
    expected, _ = simulate(parse_script(session_text() + parties))
    assert (result["digest"], result["metrics"]) == (expected.digest, json.loads(json.dumps(expected.metrics)))


def test_the_pages_session_is_what_it_says() -> None:
    assert tomllib.loads(session_text())["session"]["rounds"] == 2
