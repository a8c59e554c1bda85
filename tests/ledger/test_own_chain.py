"""A node's own chain, which says which chains there are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from comity.errors import LedgerBroken
from comity.ledger.ledger import OWN, Chain, Fact, Head, in_round, loaded
from comity.ledger.receipts import SignedStatement
from comity.ledger.verification import verify
from comity.store.memory_store import MemoryStore
from tests.ledger.books import (
    bad_entry,
    make_party,
    open_with,
    play,
    rechained,
)


class TestNodesOwnChain:
    """What says which chains there are."""

    @pytest.fixture
    def chains(self) -> list[Chain]:
        """A ledger with one session that is over and one that is active."""
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        play(initiator, acceptor, ends=True)
        initiator.store.record(Fact("intended", "s-2", in_round(1), "third", "sent", "loss", "1", 8))
        chains = loaded(initiator.store.chains())
        verify(chains)
        return chains

    def test_says_which_chains_there_are_and_how_they_ended(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        assert [(each.fact.matter, each.fact.session, each.fact.peer) for each in own.entries] == [
            ("chain-opened", *ended.name),
            ("chain-ended", *ended.name),
            ("chain-opened", *active.name),
        ]
        assert list(own.entries)[1].fact.body == {"length": ended.head.length, "hash": ended.head.hash}

    def test_a_removed_session(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        for left, gone in (([own, active], ended), ([own, ended], active)):
            with pytest.raises(LedgerBroken, match=f"chain of {gone.name} is missing"):
                verify(left)

    def test_a_removed_session_and_what_was_said_of_it(self, chains: list[Chain]) -> None:
        own, ended, _ = chains
        assert bad_entry([replace(own, entries=list(own.entries)[:2]), ended])[0] == 2
        # Chained anew, it is as the node says that it is; only the peer's ledger tells.
        entries, head = rechained(list(own.entries)[:2])
        verify([Chain(OWN, head, entries), ended])

    def test_without_it(self, chains: list[Chain]) -> None:
        _, ended, active = chains
        with pytest.raises(LedgerBroken, match="the node's own chain is missing"):
            verify([ended, active])
        verify([ended, active], is_whole=False)
        with pytest.raises(LedgerBroken, match="the node's own chain is missing"):
            verify([])

    def test_out_of_place(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        with pytest.raises(LedgerBroken, match="does not stand first"):
            verify([ended, own, active])
        with pytest.raises(LedgerBroken, match="stands there twice"):
            verify([own, ended, active, active])

    def test_a_chain_that_was_never_opened(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        entries, head = rechained(list(own.entries)[:2])
        with pytest.raises(LedgerBroken, match=f"chain of {active.name} was never opened"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_an_empty_chain(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        with pytest.raises(LedgerBroken, match=f"chain of {active.name} is empty"):
            verify([own, ended, replace(active, head=Head(), entries=[])])

    def test_a_missing_tail_with_a_head_that_fits(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        for length in range(1, ended.head.length):
            entries = list(ended.entries)[:length]
            short = Chain(ended.name, Head(length, entries[-1].hash), entries)
            with pytest.raises(LedgerBroken, match="does not end where the node's own chain says"):
                verify([own, short, active])

    @pytest.mark.parametrize("body", [{"length": 3}, {"hash": "f" * 64}, {"length": "all"}, {"hash": None}])
    def test_a_forged_final_head(self, chains: list[Chain], body: dict[str, Any]) -> None:
        own, ended, active = chains
        entries = list(own.entries)
        said = entries[1].fact
        entries[1] = replace(entries[1], fact=replace(said, body={**said.body, **body}))
        entries, head = rechained(entries)
        with pytest.raises(LedgerBroken, match=f"chain of {ended.name} does not end where"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_a_final_head_of_a_session_that_is_active(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        head = {"length": active.head.length, "hash": active.head.hash}
        final = Fact("chain-ended", active.name.session, peer=active.name.peer, body=head)
        entries, head = rechained([*own.entries, replace(list(own.entries)[-1], fact=final)])
        with pytest.raises(LedgerBroken, match=f"chain of {active.name} does not end where"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_a_missing_final_head(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        entries = list(own.entries)
        entries, head = rechained([entries[0], entries[2]])
        with pytest.raises(LedgerBroken, match=f"chain of {ended.name} ended: expected a final head"):
            verify([Chain(OWN, head, entries), ended, active])

    def test_what_comes_after_the_end(self, chains: list[Chain]) -> None:
        own, ended, active = chains
        late = replace(list(ended.entries)[-1], fact=Fact("privacy", "s-1", peer="hospital"))
        entries, head = rechained([*ended.entries, late])
        broken = bad_entry([own, Chain(ended.name, head, entries), active])
        assert broken == (ended.head.length, str(ended.name))

    @pytest.mark.parametrize(
        "fact",
        [
            Fact("chain-opened", "", peer=""),
            Fact("chain-ended", "s-9", peer="hospital", body={"length": 1, "hash": "f" * 64}),
            Fact("intended", "s-1", in_round(1), "hospital", "sent", "loss", "1", 8),
        ],
    )
    def test_what_does_not_belong_there(self, chains: list[Chain], fact: Fact) -> None:
        own, *others = chains
        entries, head = rechained([*own.entries, replace(list(own.entries)[-1], fact=fact)])
        assert bad_entry([Chain(OWN, head, entries), *others]) == (3, str(OWN))

    def test_a_statement_does_not_change_with_what_is_done_with_others(self) -> None:
        moment = datetime(2026, 1, 1, tzinfo=UTC)

        def receipt(*others: Fact) -> SignedStatement:
            party = make_party("hospital", MemoryStore(clock=lambda: moment))
            open_with(party, make_party("clinic"))
            for fact in others:
                party.store.record(fact)
            party.store.record(Fact("delivered", "s-1", in_round(1), "clinic", "received", "loss", "1", 8))
            return party.state("receipt", 1, "ff", "clinic")

        more = [Fact("intended", f"s-{n}", in_round(1), "third", "sent", "loss", "1", 8) for n in range(1, 5)]
        assert receipt() == receipt(*more) == receipt(*more, Fact("ended", "s-2", peer="third"))
