"""The tables of a store in a database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

VERSION = 1
"""Of the tables below. A store of a later one is refused; the first change of them brings migrations."""

metadata = MetaData()

_position = BigInteger().with_variant(Integer, "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""`schema`: the version of the tables."""

ledger = Table(
    "ledger",
    metadata,
    Column("position", _position, primary_key=True, autoincrement=False),
    Column("matter", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("peer", Text, nullable=False),
    Column("direction", Text),
    Column("kind", Text),
    Column("subject", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("time", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("identity", LargeBinary, nullable=False, unique=True),
    Index("ledger_session", "session", "position"),
)
"""The entries; `identity` is the BLAKE3 of their facts' identity."""

head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("length", _position, nullable=False),
    Column("hash", Text, nullable=False),
)
"""One row, of id 0: how long the ledger is and what its last entry's hash is, so that a missing tail shows."""

sessions = Table(
    "sessions",
    metadata,
    Column("position", _position, primary_key=True),
    Column("session", Text, nullable=False, unique=True),
    Column("contract", Text, nullable=False),
    Column("own", Text, nullable=False),
    Column("peers", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("begun", Text, nullable=False),
    Column("waits", Text, nullable=False),
    Column("promised", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
)
"""The sessions; `digest` is over the row, so that a damaged one is not taken for what was written."""

journal = Table(
    "journal",
    metadata,
    Column("position", _position, primary_key=True),
    Column("session", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("fields", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Index("journal_session", "session", "position"),
)
"""The sessions' records; `digest` as above."""
