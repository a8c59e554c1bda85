"""Bundles of a package's protocol: out of order, again and again, and between sessions."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from comity.errors import ComityError, ContractMismatch
from comity.ledger.comparison import compare
from comity.node.sessions.script import parse_script
from comity.transport.bundles import Bundle, Label, opened_bundle, write_bundle
from tests.node.offline_pair import Journey
from tests.node.test_offline import clinic

SESSION = """
[session]
protocol = "federated_count"
id = "{name}"
acceptors = ["hospital"]
rounds = 2
seed = 3
"""
EGRESS = 'egress = ["contract", "count"]'


@pytest.fixture
def journey(tmp_path: Path) -> Journey:
    """An analyst and a site."""
    roles = {"clinic": "analyst", "hospital": "site"}
    return Journey.prepared(tmp_path / "journey", roles, clinic=EGRESS, hospital=EGRESS)


def begin(journey: Journey, name: str) -> Path:
    with journey.desk("clinic") as desk:
        return desk.export(desk.begin(parse_script(SESSION.format(name=name))), journey.drive).file


def test_whatever_the_order_each_session_is_itself(journey: Journey) -> None:
    """Two sessions at a time; every bundle is taken again and again, the later session's first, and old ones between."""
    files: dict[str, list[Path]] = {"hospital": [begin(journey, name) for name in "ab"], "clinic": []}
    done: dict[str, list[object]] = {"a": [], "b": []}
    for sender, receiver in [("clinic", "hospital"), ("hospital", "clinic")] * 3 + [("clinic", "hospital")]:
        for name in "ab":
            # There is nothing to export where a session is over.
            with suppress(ComityError):
                files[receiver].append(journey.export(sender, name).file)
        old, new = files[receiver][:-2], files[receiver][-2:]
        for file in (*reversed(new), *old[-3:], *new):
            with suppress(ComityError):
                taken = journey.take(receiver, file)
                done[taken.session] += [] if taken.result is None else [taken.result.metrics["sum"]]
    assert len(done["a"]) == 1
    assert done["a"] == done["b"]
    assert compare(journey.chains("clinic"), journey.chains("hospital")) == []


def test_a_bundle_is_of_the_session_that_it_names(journey: Journey, tmp_path: Path) -> None:
    """A party may label what it likes with its own key: the label and what is in it must be one session's."""
    proposal = begin(journey, "a")
    with opened_bundle(proposal, lambda sender: clinic().public_key) as bundle:
        calls = list(bundle.calls)
        for label in (Label("hospital", "b", bundle.label.contract_hash), Label("hospital", "a", "0" * 64)):
            write_bundle(tmp_path / "other.bundle", label, Bundle(0, calls), clinic(), "clinic")
            with pytest.raises(ContractMismatch):
                journey.take("hospital", tmp_path / "other.bundle")
    assert journey.entries("hospital") == []
