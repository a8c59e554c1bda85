"""What rounds cost where a learner pays: by the round, or by each provider's share of the gain."""

from __future__ import annotations

from typing import Any

import pytest

from comity.node.sessions.statement import stated
from comity.transport.bindings.in_process import InProcessChannel
from tests.cases import plain
from tests.company import company


def priced(rule: str) -> str:
    text = plain("assisted_learning").text
    return text.replace(
        "[session.terms]\n", f'[session.price]\namount = 4.0\ncurrency = "CHF"\nrule = "{rule}"\n[session.terms]\n'
    )


@pytest.mark.parametrize("rule", ["each", "by_share"])
def test_both_sides_reckon_alike_as_far_as_they_know(rule: str) -> None:
    found = company(priced(rule))
    (outcome,) = found.run(lambda own, other, role: InProcessChannel(other, role))
    learner, provider = found.initiators[0][0].own.party, found.acceptors[0][0].own.party
    sides: dict[str, Any] = {}
    for name, metrics in ((learner, outcome.metrics), (provider, {})):
        entries = found.parties[name].store.entries(found.contract.session)
        sides[name] = stated(found.contract, found.definition, name, metrics, entries)
    ours, theirs = (
        {each.units.first: each for each in side.lines if each.charged} for side in (sides[learner], sides[provider])
    )
    assert set(ours) == set(theirs) == set(range(1, found.contract.rounds + 1))
    for round, line in ours.items():
        other = theirs[round]
        assert (line.payer, line.payee, line.party) == (learner, provider, provider)
        assert (other.payer, other.payee, other.party) == (learner, provider, provider)
        assert (line.sent, line.received) == (other.received, other.sent)
        change = line.said["loss_change_by_round"]
        assert line.amount == (4.0 if rule == "each" or change < 0 else 0.0)
    if rule == "each":
        assert sides[provider].owed == sides[learner].owed == {(learner, provider): 4.0 * found.contract.rounds}
    else:
        # What the help was worth, the learner alone has seen.
        assert not sides[provider].is_whole
        assert sides[learner].is_whole
