"""Two parties' ledgers side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from comity.ledger.comparison import common_sessions, compare
from comity.ledger.ledger import Chain, Entry, Fact, in_round
from comity.ledger.verification import verify
from comity.store.memory_store import MemoryStore
from tests.ledger.books import (
    BATCHES,
    Party,
    book,
    changed,
    make_party,
    open_with,
    place_of,
    play,
    rechained,
)


class TestCompare:
    def test_both_sides_agree(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)
        assert common_sessions(ours, theirs) == ["s-1"]
        assert compare(ours, theirs) == compare(theirs, ours) == []

    def test_what_one_sent_and_the_other_never_had(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)
        theirs = changed(
            theirs, lambda entries: entries.remove(next(each for each in entries if each.fact.kind == "loss"))
        )
        (found,) = [each for each in compare(ours, theirs) if each.what.startswith("loss")]
        assert str(found) == "session s-1, round 1: loss 1.0: ours sent 8 bytes, theirs not received"
        (found,) = [each for each in compare(theirs, ours) if each.what.startswith("loss")]
        assert (found.ours, found.theirs) == ("not received", "sent 8 bytes")

    def test_who_was_killed_while_something_left_has_written_that_it_was_about_to(
        self, parties: tuple[Party, Party]
    ) -> None:
        ours, theirs = map(book, parties)

        def without(matter: str) -> Callable[[list[Entry]], None]:
            def drop(entries: list[Entry]) -> None:
                facts = [each.fact for each in entries]
                gone = next(at for at, fact in enumerate(facts) if (fact.matter, fact.kind) == (matter, "loss"))
                del entries[gone]

            return drop

        def losses(one: list[Chain], other: list[Chain]) -> list[str]:
            return [str(each) for each in compare(one, other) if each.what.startswith("loss")]

        killed = changed(ours, without("delivered"))
        assert losses(killed, theirs) == losses(theirs, killed) == []
        assert losses(changed(killed, without("intended")), theirs) == [
            "session s-1, round 1: loss 1.0: ours not sent, theirs received 8 bytes"
        ]

    def test_another_size(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)

        def enlarge(entries: list[Entry]) -> None:
            index = next(entry.index for entry in entries if entry.fact.kind == "loss")
            entries[index] = replace(entries[index], fact=replace(entries[index].fact, size=9))

        assert [str(each) for each in compare(ours, changed(theirs, enlarge))] == [
            "session s-1, round 1: loss 1.0: ours sent 8 bytes, theirs received 9 bytes"
        ]

    def test_a_ledger_that_was_written_anew_contradicts_its_own_receipts(self, parties: tuple[Party, Party]) -> None:
        """Wholly consistent in itself, signatures and all: only what it signed before gives it away."""
        initiator, acceptor = parties
        ours = book(initiator)
        again = make_party("hospital"), make_party("clinic")
        again[0].store.record(Fact("privacy", "s-1", peer="clinic"))
        play(again[1], again[0])
        theirs = book(again[0])
        verify(theirs)
        differences = compare(ours, theirs)
        assert {each.what for each in differences} >= {"receipt by hospital"}
        assert all("quotes" in each.ours for each in differences if each.what == "receipt by hospital")
        assert compare(ours, book(acceptor)) == []

    def test_a_removed_session_shows_to_the_peer(self, parties: tuple[Party, Party]) -> None:
        """Removed with all that the node's own chain says of it, so that what is left holds."""
        ours, theirs = map(book, parties)
        rest = make_party("hospital")
        rest.store.record(Fact("delivered", "s-9", in_round(1), "clinic", "received", "loss", "1", 8))
        assert {each.ours for each in compare(ours, book(rest), "s-1") if each.what == "the charge"} != set()
        assert compare(ours, theirs, "s-1") == []

    def test_a_shortened_ledger(self, parties: tuple[Party, Party]) -> None:
        ours, (own, chain) = map(book, parties)
        entries = list(chain.entries)
        short, head = rechained(entries[: place_of(entries, kind="receipt", round=3)])
        shortened = [own, Chain(chain.name, head, short)]
        verify(shortened)
        whats = [each.what for each in compare(ours, shortened)]
        assert whats.count("receipt by hospital") == 1
        assert whats.count("the charge") == 1
        assert [each for each in whats if each.startswith("checkpoint")]

    def test_a_statement_that_its_signer_does_not_have(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)

        def hide(entries: list[Entry]) -> None:
            index = place_of(entries, kind="receipt", round=3)
            # With its hash, so that the chain goes through.
            entries[index] = replace(entries[index], fact=Fact("privacy", "s-1", peer="clinic"))

        whats = {each.what: each.theirs for each in compare(ours, changed(theirs, hide))}
        assert whats == {"receipt by hospital": "has no such statement", "the charge": "not charged"}

    def test_other_peers_are_left_out(self) -> None:
        store = MemoryStore()
        store.record(Fact("intended", "s-0", in_round(1), "third", "sent", "loss", "1", 8))
        store.record(Fact("delivered", "s-0", in_round(1), "third", "sent", "loss", "1", 8))
        initiator, acceptor = make_party("clinic", store), make_party("hospital")
        play(initiator, acceptor)
        # A session with several: the third's part in it is no matter of the second's.
        store.record(Fact("delivered", "s-1", in_round(1), "third", "received", "loss", "9", 8))
        ours, theirs = book(initiator), book(acceptor)
        assert common_sessions(ours, theirs) == ["s-1"]
        assert compare(ours, theirs) == compare(theirs, ours) == []

    def test_batches(self) -> None:
        initiator, acceptor = make_party("clinic"), make_party("hospital")
        open_with(initiator, acceptor)
        open_with(acceptor, initiator)
        acceptor.keep(initiator.state("request", BATCHES[1], "ff", "hospital"), "received", "clinic")
        initiator.keep(acceptor.state("receipt", BATCHES[1], "ff", "clinic"), "received", "hospital")
        ours, theirs = book(initiator), book(acceptor)
        assert compare(ours, theirs) == []
        differences = compare(ours, changed(theirs, lambda entries: entries.pop()))
        assert "session s-1, requests 101 to 200: the charge: ours charged for ff…, theirs not charged" in map(
            str, differences
        )

    def test_a_session_that_one_denies(self, parties: tuple[Party, Party]) -> None:
        ours, theirs = map(book, parties)
        initiator = make_party("clinic")
        initiator.store.record(Fact("delivered", "s-9", in_round(1), "hospital", "received", "loss", "1", 8))
        more = [*ours, *initiator.store.chains("s-9")]
        (found,) = compare(more, theirs)
        assert str(found) == "session s-9, round 1: loss 1: ours received 8 bytes, theirs not sent"
        (found,) = compare(theirs, more)
        assert (found.ours, found.theirs) == ("not sent", "received 8 bytes")
        # One that shows only some denies nothing.
        assert compare(more, theirs[1:]) == []
