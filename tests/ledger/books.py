"""Two parties' ledgers of a session, and what somebody could do to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from comity.errors import LedgerBroken
from comity.ledger.charges import charges_of
from comity.ledger.ledger import GENESIS, Chain, ChainName, Entry, Fact, Head, Units, in_round, loaded
from comity.ledger.receipts import SignedStatement, Signer
from comity.ledger.verification import verify
from comity.store.memory_store import MemoryStore
from comity.store.store import Store

CONTRACT = "c" * 64
ROUNDS = 3
NAME = ChainName("s-1", "hospital")
BATCHES = [Units("request", first, 100) for first in (1, 101, 201)]


@dataclass(frozen=True)
class Party:
    """One side: its ledger and its key."""

    name: str
    store: Store
    signer: Signer

    def state(self, kind: str, about: int | Units, subject: str, peer: str) -> SignedStatement:
        units = in_round(about) if isinstance(about, int) else about
        signed = self.signer.state(kind, "s-1", CONTRACT, units, subject, self.store.head("s-1", peer))
        self.keep(signed, "sent", peer)
        return signed

    def keep(self, signed: SignedStatement, direction: str, peer: str) -> None:
        statement = signed.statement
        fact = Fact("receipt", "s-1", statement.units, peer, direction, None, statement.kind, 0, signed.to_json())
        self.store.record(fact)


def make_party(name: str, store: Store | None = None) -> Party:
    return Party(name, store or MemoryStore(), Signer.from_seed(name.encode().ljust(32), name))


def member(party: Party) -> dict[str, Any]:
    role = "learner" if party.name == "clinic" else "provider"
    return {"party": party.name, "role": role, "samples": 100, "receipt_key": party.signer.public_key}


def play(initiator: Party, acceptor: Party, rounds: int = ROUNDS, *, ends: bool = False) -> None:
    """A session as the roles record it."""
    parties = {initiator.name: initiator, acceptor.name: acceptor}

    def send(sender: Party, kind: str, subject: str, size: int, round: int) -> None:
        (receiver,) = (each for name, each in parties.items() if name != sender.name)
        what = (kind, subject, size)
        sender.store.record(Fact("intended", "s-1", in_round(round), receiver.name, "sent", *what))
        receiver.store.record(Fact("delivered", "s-1", in_round(round), sender.name, "received", *what))
        sender.store.record(Fact("delivered", "s-1", in_round(round), receiver.name, "sent", *what))

    body = {"contract": CONTRACT, "members": [member(initiator), member(acceptor)]}
    initiator.store.record(Fact("opened", "s-1", peer=acceptor.name, body=body))
    acceptor.store.record(Fact("opened", "s-1", peer=initiator.name, body=body))
    for round in range(1, rounds + 1):
        send(initiator, "checkpoint", f"{round:032x}aa", 1000, round)
        send(initiator, "loss", f"{round}.0", 8, round)
        request = initiator.state("request", round, f"{round:032x}ff", acceptor.name)
        acceptor.keep(request, "received", initiator.name)
        initiator.keep(acceptor.state("receipt", round, f"{round:032x}ff", initiator.name), "received", acceptor.name)
        send(acceptor, "checkpoint", f"{round:032x}bb", 1000, round)
        acceptor.keep(
            initiator.state("acknowledgement", round, f"{round:032x}bb", acceptor.name), "received", initiator.name
        )
    if ends:
        initiator.store.record(Fact("ended", "s-1", peer=acceptor.name))
        acceptor.store.record(Fact("ended", "s-1", peer=initiator.name))


@dataclass(frozen=True)
class Whole:
    """A chain of a session that is active, in which nothing is wrong."""

    lines: Sequence[Entry]
    head: Head


def first_bad(entries: Iterable[Entry], head: Head, **options: Any) -> int:
    """The entry of the initiator's chain that `verify` names."""
    index, chain = bad_entry([Chain(NAME, head, entries)], is_whole=False, **options)
    assert chain == str(NAME)
    return index


def bad_entry(chains: Iterable[Chain], **options: Any) -> tuple[int, str]:
    """The entry that `verify` names, and its chain."""
    with pytest.raises(LedgerBroken) as caught:
        verify(chains, **options)
    named = re.match(r"ledger entry (\d+) of (session \S+ with \S+|the node's own chain) ", str(caught.value))
    assert named is not None, str(caught.value)
    return int(named[1]), named[2]


def rechained(entries: Sequence[Entry], start: int = 0) -> tuple[list[Entry], Head]:
    """What somebody makes of a ledger who knows how its hashes are made."""
    made = list(entries[:start])
    for index, entry in enumerate(entries[start:], start=start):
        moved = replace(entry, index=index, previous=made[-1].hash if made else GENESIS)
        made.append(replace(moved, hash=moved.computed_hash()))
    return made, Head(len(made), made[-1].hash)


def place_of(entries: Iterable[Entry], *, kind: str, round: int, direction: str = "sent") -> int:
    """Where a statement stands."""
    wanted = ("receipt", kind, in_round(round), direction)
    return next(
        entry.index
        for entry in entries
        if (entry.fact.matter, entry.fact.subject, entry.fact.units, entry.fact.direction) == wanted
    )


def restated(
    entries: Sequence[Entry], index: int, signer: Signer | None = None, **changes: Any
) -> tuple[list[Entry], Head]:
    """A ledger with another statement at an entry, chained anew; signed by `signer`, else as it was."""
    entry = entries[index]
    signed = SignedStatement.from_json(entry.fact.body)
    statement = replace(signed.statement, **changes)
    if signer is not None:
        head = Head(statement.head_length, statement.head_hash)
        signed = signer.state(
            statement.kind, statement.session, statement.contract, statement.units, statement.subject, head
        )
        statement = replace(signed.statement, party=statement.party)
    body = SignedStatement(statement, signed.signature).to_json()
    edited = [*entries[:index], replace(entry, fact=replace(entry.fact, body=body)), *entries[index + 1 :]]
    return rechained(edited, index)


OTHER_VALUES: dict[str, Callable[[Any], Any]] = {
    "index": lambda index: index + 1,
    "time": lambda _: "2020-01-01T00:00:00.000000+00:00",
    "previous": lambda _: "1" * 64,
    "hash": lambda _: "2" * 64,
    "matter": lambda matter: "ended" if matter != "ended" else "opened",
    "session": lambda session: f"{session}x",
    "units": lambda units: replace(units, first=units.first + 1),
    "peer": lambda _: "somebody",
    "direction": lambda direction: "received" if direction != "received" else None,
    "kind": lambda kind: "update" if kind != "update" else None,
    "subject": lambda subject: f"{subject}0",
    "size": lambda number: number + 1,
    "body": lambda body: {**body, "more": 1},
}


def edited(entry: Entry, name: str, value: Any) -> Entry:
    if name in {each.name for each in fields(Entry)}:
        return replace(entry, **{name: value})
    return replace(entry, fact=replace(entry.fact, **{name: value}))


STATEMENT_VALUES: dict[str, Any] = {
    "kind": "acknowledgement",
    "party": "somebody",
    "session": "s-2",
    "contract": "d" * 64,
    "unit": "request",
    "first": 7,
    "count": 2,
    "subject": "e" * 64,
    "head_length": 1,
    "head_hash": "f" * 64,
}


def requests(first: int, count: int) -> Units:
    return Units("request", first, count)


def open_with(party: Party, peer: Party) -> None:
    body = {"contract": CONTRACT, "members": [member(party), member(peer)]}
    party.store.record(Fact("opened", "s-1", peer=peer.name, body=body))


def play_to_request(initiator: Party, about: int | Units) -> None:
    open_with(initiator, make_party("hospital"))
    initiator.state("request", about, "ff", "hospital")


def answer(initiator: Party, kind: str, units: Units, subject: str) -> None:
    """The hospital states something to the clinic."""
    acceptor = make_party("hospital")
    initiator.keep(acceptor.signer.state(kind, "s-1", CONTRACT, units, subject, Head()), "received", "hospital")


def assert_broken(store: Store, index: int, what: str) -> None:
    for check in (lambda: verify(store.chains()), lambda: charges_of(store.entries())):
        with pytest.raises(LedgerBroken, match=rf"^ledger entry {index} of .*{what}"):
            check()


def book(party: Party) -> list[Chain]:
    """A party's ledger."""
    return loaded(party.store.chains())


def changed(chains: list[Chain], change: Callable[[list[Entry]], object]) -> list[Chain]:
    """A ledger with something done to the entries of its last chain, and nothing else."""
    *others, last = chains
    entries = list(last.entries)
    change(entries)
    return [*others, replace(last, entries=entries)]
