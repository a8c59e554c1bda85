"""What `comity check` says of rounds that a client would sit out for lack of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

import pytest
import torch

from comity.data import Splits, load_data
from comity.data.config import DataConfig
from comity.node.preflight import Context, Row, preflight
from comity.privacy.terms import PrivacyTerms
from comity.protocols.peer_study.absences import absences
from comity.protocols.peer_study.settings import Settings
from comity.protocols.peer_study.terms import PeerStudyTerms

NODE = """
party = "clinic"
role = "client"
state_dir = "state"
insecure = true
privacy = { preset = "public" }
peers = { hub = { address = "127.0.0.1:1" } }
policy = { min_samples = FEWEST, egress = ["contract", "update", "checkpoint", "sample"] }
[protocols.peer-study]
labels = "LABELS"
[data]
source = "digits"
splits = { pool = { share = 0.99, protected = 0.5 } }
"""
"""Ten digits are labelled from the beginning."""
TEMPLATE = files("comity.protocols.peer_study").joinpath("session.toml").read_text()

Rows = Callable[..., list[Row]]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """The rows about rounds, of a client and of a session whose first labels a test says."""

    def check(terms: str = "", *, fewest: int = 20, labels: str = "pool") -> list[Row]:
        (tmp_path / "node.toml").write_text(NODE.replace("LABELS", labels).replace("FEWEST", str(fewest)))
        script = tmp_path / "session.toml" if terms else None
        if script is not None:
            text = (
                TEMPLATE.replace("$acceptor_value", '"hub"').replace("$acceptor", "hub").replace("$normalization", "")
            )
            script.write_text(text.replace("initial = 10\n", f"{terms}\n"))
        found = list(preflight(Context(tmp_path / "node.toml", "client", script)))
        assert {row.check for row in found if row.verdict == "failed"} == {"peer hub: network"}
        return [row for row in found if row.check == "rounds"]

    return check


def test_client_with_few_labels_is_told_before_there_is_a_session(rows: Rows) -> None:
    (row,) = rows()
    assert row.verdict == "warning"
    assert "10 samples are labelled" in row.found
    assert "until 10 more are labelled" in row.found
    assert "session.terms.initial of 10 or more" in row.action


def test_client_with_enough_is_told_nothing(rows: Rows) -> None:
    assert rows(fewest=10) == []
    assert rows("initial = 10") == []


def test_client_is_told_how_many_its_people_have_to_label(rows: Rows) -> None:
    (row,) = rows("initial = 12", labels="people")
    assert "people have to label 10 of the first 12 samples" in row.found


def test_client_is_told_when_it_would_release_too_few(rows: Rows) -> None:
    (row,) = rows('initial = 12\nmode = "upload"')
    assert "12 samples are chosen at first" in row.found
    assert "min_samples wants 20" in row.found


def _absent(known: int, labels: Literal["people", "pool"] = "pool", **terms: object) -> str:
    """What is said of six rounds of a client with this many labelled samples, and hundreds in its pool."""
    config = DataConfig.model_validate({"source": "digits", "splits": {"pool": {"share": 0.9}}})
    splits = load_data(config)
    train = replace(splits.train, protected=torch.arange(len(splits.train)) >= known)
    given = PeerStudyTerms.model_validate({"clients": 3, "rounds_per_step": 2} | terms)
    said = absences(given, 6, Splits(train, others=splits.others), Settings(labels=labels), 10)
    return said[0].found if said else ""


def test_rounds_until_there_are_enough_labels_are_counted() -> None:
    assert "sits out the rounds until 2 of 6" in _absent(0, initial=0, budget=10)
    assert "sits out the rounds until 4 of 6" in _absent(0, initial=0, budget=5)
    assert "sits out the rounds until 6 of 6" in _absent(0, initial=0, budget=1)
    assert _absent(9, initial=1) == ""


def test_protected_samples_that_have_labels_do_not_count() -> None:
    assert _absent(10, initial=0) == ""
    assert "0 samples of this client" in _absent(0, initial=0)


def test_noise_that_was_agreed_on_wants_samples_too() -> None:
    asked = {"initial": 28, "batch_size": 2}
    assert _absent(12, "people", **asked) == ""
    noise = PrivacyTerms(scope="total", epsilon=8.0)
    # A step draws one of twenty, on average: of fewer than twenty it would be likelier than was charged for.
    assert "people have to label 8 of the first 28" in _absent(12, "people", privacy=noise, **asked)
