"""`comity audit features`: what a query shows."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import pytest

from comity.errors import InvalidValue
from comity.ledger.ledger import WHOLE
from comity.node.preflight import Context, preflight
from comity.protocol.audits import AuditContext, AuditedParty, Sent
from comity.protocols.learning_to_help.audits import features
from tests.company import Company, company
from tests.protocols.learning_to_help.sessions import SESSIONS


def _audited(parties: Company, *sent: Sent) -> AuditContext:
    party = parties.parties["client"]
    audited = AuditedParty(party.holdings.data, lambda splits: party.task(parties.contract, splits), sent, 0)
    unused: Any = None
    return AuditContext(parties.contract, unused, party.store, unused, audited)


def test_features_of_a_convolution_show_the_digits_nearly_as_they_are() -> None:
    parties = company(SESSIONS["plain"].text)
    ((context,),) = parties.initiators
    local = context.task.layouts["local"].pack(context.task.local)
    found = features(_audited(parties, Sent("local_model", WHOLE, local)))
    assert float(found["r2"]) > 0.8  # type: ignore[arg-type]
    assert float(found["psnr_db"]) > 18  # type: ignore[arg-type]
    assert (found["bytes_per_input"], found["values_per_input"]) == (256, 64)


def test_without_the_model_that_left_there_is_nothing_to_audit() -> None:
    parties = company(SESSIONS["plain"].text)
    ((context,),) = parties.initiators
    with pytest.raises(InvalidValue, match="nothing that this session sent"):
        features(_audited(parties))
    blob = context.task.layouts["rejector"].pack(context.task._models["rejector"].state_dict())
    with pytest.raises(InvalidValue, match="no model that makes features"):
        features(_audited(parties, Sent("checkpoint", WHOLE, blob)))


NODE = """
party = "clinic"
role = "client"
state_dir = "state"
insecure = true
data = { source = "digits", splits = { calibration = { share = 0.2 } } }
privacy = { preset = "public" }
policy = { egress = ["contract", "local_model", "features"] }
peers = { hospital = { address = "127.0.0.1:1" } }
"""


def test_check_says_that_features_are_not_anonymous(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(NODE)
    text = files("comity.protocols.learning_to_help").joinpath("session.toml").read_text()
    filling = {"acceptor": "hospital", "acceptor_value": '"hospital"', "normalization": ""}
    (tmp_path / "s.toml").write_text(Template(text).substitute(filling))
    rows = preflight(Context(tmp_path / "node.toml", "client", tmp_path / "s.toml"))
    said = [row for row in rows if row.check == "privacy" and row.verdict == "warning"]
    assert any("features are not anonymous" in row.found and "policy.egress" in row.action for row in said)
