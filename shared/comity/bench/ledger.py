"""What a ledger costs: to check, against hashing its entries alone; to write durably, against memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from blake3 import blake3

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved
from comity.contract import Json
from comity.ledger.ledger import Direction, Entry, Fact, in_round
from comity.ledger.receipts import Signer, StatementKind
from comity.ledger.verification import verify
from comity.store.memory_store import MemoryStore
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import Store

REQUIRED = 20_000
"""Entries that a second's verification has to get through."""

CONTRACT = "c" * 64
IN_A_ROUND = 40
"""Checkpoints that cross in a round, which also bring a loss each."""


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark."""
    count, appends, repeats = (2_000, 50, 1) if quick else (40_000, 1_000, 5)
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as name:
        folder = Path(name)
        memory = MemoryStore()
        _fill(memory, _crossings(count))
        with closing(_store(folder / "filled", durable=False)) as sql:
            with sql.transaction():
                _fill(sql, _crossings(count))
            medians = interleaved(
                {
                    "hash every entry": lambda: _rate(_hash, memory),
                    "verify": lambda: _rate(_verify, memory),
                    "read from SQLite and verify": lambda: _rate(_verify, sql),
                },
                repeats=repeats,
            )
        signed = MemoryStore()
        _sign(signed, rounds=max(count // 400, 1))
        medians |= interleaved({"verify statements": lambda: _rate(_verify, signed)}, repeats=repeats)
        stores: dict[str, Callable[[int], Store]] = {
            "append in memory": lambda _: MemoryStore(),
            "append to SQLite": lambda number: _store(folder / f"synced-{number}", durable=True),
            "append to SQLite, not synced": lambda number: _store(folder / f"fast-{number}", durable=False),
        }
        medians |= interleaved({name: _appending(make, appends) for name, make in stores.items()}, repeats=repeats)
    rows = {label: Row(label, median, "1/s") for label, median in medians.items()}
    for label, baseline in (
        ("verify", "hash every entry"),
        ("read from SQLite and verify", "hash every entry"),
        ("append to SQLite", "append in memory"),
        ("append to SQLite, not synced", "append in memory"),
    ):
        rows[label] = rows[label].over(rows[baseline])
    target = Target.at_least(
        "entries verified a second, read from SQLite", REQUIRED, medians["read from SQLite and verify"]
    )
    return Report("ledger", describe(), list(rows.values()), [target])


def _store(folder: Path, *, durable: bool) -> SqlStore:
    folder.mkdir()
    return SqlStore(store_url(folder), durable=durable)


def _crossings(count: int) -> Iterator[Fact]:
    """What leaves in a session, without what is signed."""
    for number in range(count // 4):
        round = 1 + number // IN_A_ROUND
        digest = blake3(f"{number}".encode()).hexdigest()
        yield Fact("intended", "bench", in_round(round), "acceptor", "sent", "checkpoint", digest, 178_110)
        yield Fact("intended", "bench", in_round(round), "acceptor", "sent", "loss", f"{round}.{number}", 8)
        yield Fact("delivered", "bench", in_round(round), "acceptor", "sent", "checkpoint", digest, 178_110)
        yield Fact("delivered", "bench", in_round(round), "acceptor", "sent", "loss", f"{round}.{number}", 8)


def _sign(store: Store, *, rounds: int) -> None:
    """A session of nothing but statements."""
    signers = {name: Signer.from_seed(name.encode().ljust(32), name) for name in ("initiator", "acceptor")}
    members: list[Json] = [{"party": name, "receipt_key": signer.public_key} for name, signer in signers.items()]
    store.record(Fact("opened", "bench", peer="acceptor", body={"contract": CONTRACT, "members": members}))
    kinds: tuple[tuple[StatementKind, str], ...] = (("request", "initiator"), ("receipt", "acceptor"))
    for round in range(1, rounds + 1):
        for kind, party in kinds:
            head = store.head("bench", "acceptor")
            signed = signers[party].state(kind, "bench", CONTRACT, in_round(round), f"{round:064x}", head)
            direction: Direction = "sent" if party == "initiator" else "received"
            store.record(
                Fact("receipt", "bench", in_round(round), "acceptor", direction, None, kind, 0, signed.to_json())
            )


def _fill(store: Store, facts: Iterable[Fact]) -> None:
    for fact in facts:
        store.record(fact)
        store.sync()


def _rate(work: Callable[[Store], object], store: Store) -> float:
    began = time.perf_counter()
    work(store)
    seconds = time.perf_counter() - began
    return sum(chain.head.length for chain in store.chains()) / seconds


def _verify(store: Store) -> None:
    verify(store.chains())


def _hash(store: Store) -> list[str]:
    return [Entry.computed_hash(entry) for entry in store.entries()]


def _appending(make: Callable[[int], Store], appends: int) -> Callable[[], float]:
    runs = iter(range(10**6))

    def measure() -> float:
        facts = list(_crossings(appends))
        with closing(make(next(runs))) as store:
            began = time.perf_counter()
            _fill(store, facts)
            return len(facts) / (time.perf_counter() - began)

    return measure
