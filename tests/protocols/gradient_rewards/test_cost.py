"""What rounds cost where a server shares an amount out: both sides work out the same sums."""

from __future__ import annotations

import pytest

from comity.ledger.ledger import Entry
from comity.node.sessions.statement import Statement, stated
from comity.transport.bindings.in_process import InProcessChannel
from tests.cases import plain
from tests.company import Company, company

PRICE = '[session.price]\namount = 9.0\nrule = "by_share"\n[session.terms]\n'


def statement(found: Company, party: str, metrics: object) -> Statement:
    entries: list[Entry] = list(found.parties[party].store.entries(found.contract.session))
    return stated(found.contract, found.definition, party, dict(metrics), entries)  # type: ignore[call-overload]


def test_a_server_and_its_clients_reckon_alike() -> None:
    found = company(plain("gradient_rewards").text.replace("[session.terms]\n", PRICE))
    outcomes = found.run(lambda own, other, role: InProcessChannel(other, role))
    whole = statement(found, "server", found.roles[0].outcome().metrics)
    rounds = {(each.units.first, each.party): each for each in whole.lines if each.units.unit}
    assert len(rounds) == 6
    for client, outcome in zip(found.initiators, outcomes, strict=True):
        name = client[0].own.party
        own = statement(found, name, outcome.metrics)
        for line in (each for each in own.lines if each.units.unit):
            other = rounds[line.units.first, name]
            assert (line.payer, line.payee, line.party) == ("server", name, name)
            assert line.amount == pytest.approx(9.0 * line.said["importance_by_round"])  # type: ignore[operator]
            assert line.amount == pytest.approx(other.amount)
            assert (line.sent, line.received) == (other.received, other.sent)
            assert line.charged == other.charged == 1
        assert own.owed == pytest.approx({("server", name): whole.owed["server", name]})
    # Importances of all are 1 together: the whole amount is shared out.
    assert sum(whole.owed.values()) == pytest.approx(2 * 9.0)
