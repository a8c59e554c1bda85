"""The tables of a store in a database."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 5
"""Of the tables below. A store of another one is refused; after the first release a change of them brings migrations."""

metadata = MetaData()

_position = BigInteger().with_variant(Integer, "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""`schema`: the version of the tables; `party`: whose store it is, where its node has said."""

OWN_CHAIN = 0
"""Number of the node's own chain."""

chains = Table(
    "chains",
    metadata,
    Column("chain", _position, primary_key=True),
    Column("session", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("length", _position, nullable=False),
    Column("hash", Text, nullable=False),
    Column("time", Text, nullable=False),
    Column("ended", Integer, nullable=False),
    UniqueConstraint("session", "peer"),
)
"""The chains of the ledger, with the end of each, so that a missing tail shows. Whoever appends locks the row first."""

ledger = Table(
    "ledger",
    metadata,
    Column("chain", _position, primary_key=True, autoincrement=False),
    Column("position", _position, primary_key=True, autoincrement=False),
    Column("matter", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
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
    sqlite_with_rowid=False,
)
"""The entries; `identity` is the BLAKE3 of their facts' identity."""

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
    Column("initiator", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Index("sessions_state", "state"),
    Index("sessions_initiator", "initiator", "begun"),
)
"""The sessions; `digest` is over the row, so that a damaged one is not taken for what was written.

Those that are on, and how many one party began, are found by the indexes: a row may be as long as a contract, and those of
sessions that are over stay."""

journal = Table(
    "journal",
    metadata,
    Column("position", _position, primary_key=True),
    Column("session", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("fields", Text, nullable=False),
    Column("time", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Index("journal_session", "session", "position"),
)
"""The sessions' records; `digest` as above."""

blobs = Table(
    "blobs",
    metadata,
    Column("position", _position, primary_key=True),
    Column("session", Text, nullable=False),
    Column("part", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("session", "part", "digest"),
)
"""The sessions' small blobs, which become durable together with the records that name them."""

leases = Table(
    "leases",
    metadata,
    Column("session", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("until", Text, nullable=False),
)
"""Who works on a session, and until when it may be taken for granted."""
