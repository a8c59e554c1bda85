"""What a party works out of a contract's models, it works out once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.protocol.registry import protocol
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from tests.cases import PROTOCOLS, plain


@pytest.mark.parametrize("name", PROTOCOLS)
def test_sizes_of_models_are_worked_out_once_on_the_way_into_a_session(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, definition = plain(name).script, protocol(name)
    builder = definition.load().task
    asked, sizes = Counter[str](), builder.sizes

    def counted(*given: Any) -> Any:
        asked[str(given[2])] += 1
        return sizes(*given)

    monkeypatch.setattr(type(builder), "sizes", lambda self, *given: counted(*given))
    drafting = (
        script.session.acceptors[0]
        if definition.topology.is_joined
        else next(each for each in script.party if each not in script.session.acceptors)
    )
    party = LocalParty(drafting, script.party[drafting], GivenSecrets(b"its own"), MemoryStore())
    role = definition.acceptor if definition.topology.is_joined else definition.initiator
    contract, _ = draft_contract(script, party, "sized")
    for _ in range(2):
        party.memory_space(contract)
        party.review(contract, party.membership(role, contract), (), active=0)
        party.tried_task(contract)
    assert sum(asked.values()) == 1
    # Nor anew for another session of the same terms.
    draft_contract(script, party, "again")
    assert sum(asked.values()) == 1
