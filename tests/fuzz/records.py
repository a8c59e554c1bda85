"""Decoders of what is kept and of what is shown to others of it: ledgers, journals, bundles, cards."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from comity.blobs.incoming import Incoming
from comity.contract import canonical
from comity.errors import UnknownParty
from comity.ledger.comparison import common_sessions, compare
from comity.ledger.exported import export, load
from comity.ledger.ledger import GENESIS, Chain, Fact, Head, in_round, loaded
from comity.ledger.receipts import SignedStatement, require_valid
from comity.ledger.verification import verify
from comity.store.memory_store import MemoryStore
from comity.store.places import store_url
from comity.store.sql_store import SqlStore, _digest
from comity.store.store import Record, Store, StoredSession
from comity.tensors import Blob
from comity.transport.bindings.offline import OfflineRecord
from comity.transport.bundles import _LENGTH, _MAGIC, Bundle, Label, bundled, opened_bundle, write_bundle
from comity.transport.cards import Card, fingerprint, named_party, parse_card
from comity.transport.certificates import self_signed
from comity.wire.v1 import bundles_pb2, sessions_pb2
from tests.fuzz.decoder import Decoder, scratch, written
from tests.fuzz.messages import SIGNERS, member

CONTRACT = "c" * 64
LABEL = Label("hospital", "s-1", "0" * 64)


def decoders() -> Iterator[Decoder]:
    """Exported ledgers, statements, databases, bundles and cards, each with its seals intact too, where it has some."""
    chains = loaded(_ledger().chains("s-1"))
    text = export(chains, is_whole=False).encode()
    yield Decoder("exported ledger", _exported, (text,))
    yield Decoder("exported ledger rechained", _rechained, (text,))
    statement = next(each.fact.body for each in chains[0].entries if each.fact.matter == "receipt")
    yield Decoder("statement of a ledger", _statement, (canonical(statement),))
    yield from _stores()
    yield from _bundles()
    certificate, _ = self_signed("clinic")
    card = Card((certificate,), SIGNERS["clinic"].public_key).to_pem()
    yield Decoder("card", _card, (card,))


def _ledger(store: Store | None = None) -> Store:
    """A ledger of one round, with statements of both parties."""
    ours, theirs = store or MemoryStore(), MemoryStore()
    members = [member("clinic", "learner").model_dump(), member("hospital", "provider").model_dump()]
    for each, peer in ((ours, "hospital"), (theirs, "clinic")):
        each.record(Fact("opened", "s-1", peer=peer, body={"contract": CONTRACT, "members": members}))
    what = (in_round(1), "hospital", "sent", "checkpoint", "f" * 64, 100)
    ours.record(Fact("intended", "s-1", *what))
    ours.record(Fact("delivered", "s-1", *what))
    for party, kind in (("clinic", "request"), ("hospital", "receipt"), ("clinic", "acknowledgement")):
        own, peer = (ours, "hospital") if party == "clinic" else (theirs, "clinic")
        signed = SIGNERS[party].state(kind, "s-1", CONTRACT, in_round(1), "f" * 64, own.head("s-1", peer))
        for holder, other in ((ours, "hospital"), (theirs, "clinic")):
            direction = "sent" if holder is own else "received"
            holder.record(Fact("receipt", "s-1", in_round(1), other, direction, None, kind, 0, signed.to_json()))
    return ours


def _exported(data: bytes) -> object:
    """As `comity ledger compare` and `verify` read a file."""
    found = load(data.decode("utf-8", "replace"))
    common_sessions(found.chains, found.chains)
    verify(found.chains, is_whole=found.is_whole)
    return compare(found.chains, found.chains)


def _rechained(data: bytes) -> object:
    """The same by somebody who makes the hashes anew, so that only what entries say can be wrong."""
    found = load(data.decode("utf-8", "replace"))
    chains = []
    for chain in found.chains:
        entries: list[Any] = []
        for index, entry in enumerate(chain.entries):
            moved = replace(entry, index=index, previous=entries[-1].hash if entries else GENESIS)
            entries.append(replace(moved, hash=moved.computed_hash()))
        head = Head(len(entries), entries[-1].hash if entries else GENESIS)
        chains.append(Chain(chain.name, head, entries))
    compare(chains, chains)
    return verify(chains, is_whole=found.is_whole)


def _statement(data: bytes) -> object:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    signed = SignedStatement.from_json(value)
    require_valid(signed, SIGNERS["clinic"].public_key)
    return signed


SESSION = StoredSession("s-1", {"a": 1}, {"party": "clinic"}, ({"party": "hospital"},), begun="2026-01-01")
RECORD = Record("offered", 1, {"digest": "ab", "more": [1, 2.5, None]})


def _stores() -> Iterator[Decoder]:
    folder = scratch() / "template"
    folder.mkdir(exist_ok=True)
    with closing(SqlStore(store_url(folder), durable=False, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))) as store:
        _ledger(store)
        store.save(SESSION)
        store.append("s-1", RECORD)
    with closing(sqlite3.connect(folder / "comity.db")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
    file = (folder / "comity.db").read_bytes()
    yield Decoder("database", _database, (file,), memory=16 * 2**20)
    edited = store_url(folder)

    def journal(data: bytes) -> object:
        """A record of a journal that somebody has changed, together with its digest."""
        fields = data.decode("latin-1")
        digest = _digest(["s-1", RECORD.kind, RECORD.round, fields, ""])
        with closing(sqlite3.connect(folder / "comity.db")) as connection, connection:
            connection.execute("UPDATE journal SET fields = ?, time = '', digest = ?", (fields, digest))
        with closing(SqlStore(edited, read_only=True)) as store:
            return store.records("s-1")

    def session(data: bytes) -> object:
        """What is kept of a session: seven columns as lines, and their digest."""
        columns = ("contract", "own", "peers", "result", "waits", "state", "begun")
        lines = dict(zip(columns, data.decode("latin-1").split("\n"), strict=False))
        given = {name: lines.get(name, "") for name in columns}
        order = ("contract", "own", "peers", "state", "result", "begun", "waits")
        digest = _digest(["s-1", *(given[name] for name in order), SESSION.promised, SESSION.initiator])
        change = ", ".join(f"{name} = :{name}" for name in (*columns, "digest"))
        with closing(sqlite3.connect(folder / "comity.db")) as connection, connection:
            connection.execute(f"UPDATE sessions SET {change}", given | {"digest": digest})
        with closing(SqlStore(edited, read_only=True)) as store:
            return store.sessions()

    def entry(data: bytes) -> object:
        """The body of an entry of a ledger that somebody has changed."""
        with closing(sqlite3.connect(folder / "comity.db")) as connection, connection:
            connection.execute("UPDATE ledger SET body = ? WHERE chain = 1 AND position = 0", (data.decode("latin-1"),))
        with closing(SqlStore(edited, read_only=True)) as store:
            return [entry for chain in store.chains("s-1") for entry in chain.entries]

    yield Decoder("record of a journal", journal, (canonical(RECORD.fields),))
    kept = b'{"a": 1}\n{}\n[{}]\n{}\n[{"reason": "approval"}]\nactive\n2026'
    yield Decoder("session of a store", session, (kept,))
    yield Decoder("entry of a ledger", entry, (b'{"contract": "c"}',))


def _database(data: bytes) -> object:
    folder = written("store/comity.db", data).parent
    with closing(SqlStore(store_url(folder), read_only=True)) as store:
        store.sessions()
        store.records("s-1")
        return verify(store.chains())


def _bundles() -> Iterator[Decoder]:
    call = bundled("/s/M", sessions_pb2.FetchRequest(session="s-1"), sessions_pb2.FetchRequest(session="s-1"))
    path = scratch() / "seed.bundle"
    write_bundle(path, LABEL, Bundle(1, [call], [Blob.of(bytes(50))], [bytes(32)], 2), SIGNERS["clinic"], "clinic")
    whole = path.read_bytes()
    yield Decoder("bundle", _bundle, (whole,))
    contents = bundles_pb2.BundleContents(
        receiver="hospital", session="s-1", contract_hash="0" * 64, round=1, calls=[call], ending=2
    ).SerializeToString()
    yield Decoder("contents of a bundle", _signed, (contents,))
    kept = bundles_pb2.OfflineState(round=1, calls=[call]).SerializeToString()
    yield Decoder("offline state", lambda data: OfflineRecord(written("offline", data)), (kept,))


def _bundle(data: bytes) -> object:
    with opened_bundle(written("a.bundle", data), _key_of) as bundle:
        found = []
        for digest in bundle.held:
            if digest in bundle:
                incoming = Incoming(digest, bundle.blob_size)
                bundle.fill(incoming)
                found.append(incoming.finish())
        return found


def _signed(data: bytes) -> object:
    """What somebody who is trusted signs, whatever it is."""
    head = bundles_pb2.Bundle(
        sender="clinic", contents=data, signature=SIGNERS["clinic"].sign_bundle(data)
    ).SerializeToString()
    return _bundle(_MAGIC + _LENGTH.pack(len(head)) + head)


def _key_of(party: str) -> str:
    if party not in SIGNERS:
        raise UnknownParty("not known")
    return SIGNERS[party].public_key


def _card(data: bytes) -> object:
    card = parse_card(data, "card")
    return [(fingerprint(each), named_party(each)) for each in card.certificates], card.to_pem()
