"""A price in a script."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comity.errors import ComityError, InvalidValue, LedgerBroken
from comity.ledger.charges import charges_of
from comity.node.sessions.ending import SessionEnds
from comity.node.sessions.initiator import draft_contract, stored
from comity.node.sessions.script import parse_script
from comity.node.sessions.summarizing import summarize
from comity.simulation.in_process import parties, simulate, simulate_with
from tests.cases import plain


def priced(price: str) -> str:
    return plain("federated_count").text.replace("[session]\n", f"[session]\nprice = {{ {price} }}\n")


def test_a_rule_that_a_protocol_cannot_be_reckoned_by_is_refused() -> None:
    with pytest.raises(InvalidValue, match="rule") as caught:
        simulate(parse_script(priced('amount = 1.0, rule = "by_share"')))
    assert "federated_count does not say" in str(caught.value.expected)


@pytest.mark.parametrize("price", ["amount = -1.0", 'amount = 1.0, currency = "12345678901234567"', 'rule = "each"'])
def test_a_price_that_is_none_is_refused(price: str) -> None:
    with pytest.raises(ComityError, match="price"):
        parse_script(priced(price))


def test_what_is_charged_is_added_up() -> None:
    result, _ = simulate(parse_script(priced("amount = 0.5")))
    assert result.cost is not None
    owed = result.cost["owed"]
    assert isinstance(owed, list)
    assert {each["amount"] for each in owed} == {0.5 * result.rounds_finished}  # type: ignore[index, call-overload]


@pytest.mark.parametrize("price", ["amount = 0.5", ""])
def test_a_session_ends_whose_ledger_cannot_say_what_it_costs(price: str) -> None:
    script = parse_script(priced(price) if price else plain("federated_count").text)
    asking, helping = parties(script)
    _, outcome = simulate_with(script, asking, helping)
    party = asking[0]
    contract, definition = draft_contract(script, party, f"simulation-{script.session.seed}")
    fact = next(each.fact for each in party.store.entries(contract.session) if each.fact.matter == "receipt")
    party.store.record(replace(fact, units=replace(fact.units, first=99)))
    with pytest.raises(LedgerBroken):
        charges_of(party.store.entries(contract.session))
    party.store.save(stored(contract, party.membership(definition.initiator, contract)))

    assert summarize(contract, outcome, party, 1.0).cost is None
    result = SessionEnds(party).finish(contract, outcome=outcome)
    assert result is not None
    assert (result.cost, result.ledger_verified) == (None, False)
    kept = party.store.find(contract.session)
    assert kept is not None
    assert kept.state == "finished"
