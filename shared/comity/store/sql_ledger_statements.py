"""The statements of a ledger in a database, built once: what they cost then is the database's, not ours."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Dialect, and_, bindparam, exists, func, or_, select, update

from comity.store import sql_schema as tables
from comity.store.sql_connection import Prepared
from comity.store.sql_engine import upsert_of

PAGE = 2000
"""Entries that are read at a time."""

CHAINS, LEDGER = tables.chains, tables.ledger
READ = tuple(column for column in LEDGER.c if column.name not in {"chain", "identity"})
LAST = and_(LEDGER.c.chain == CHAINS.c.chain, LEDGER.c.position == CHAINS.c.length - 1)
TAIL = (
    select(*CHAINS.c["chain", "length", "hash", "time", "ended"].values(), LEDGER.c.hash.label("last"))
    .select_from(CHAINS.outerjoin(LEDGER, LAST))
    .where(CHAINS.c.session == bindparam("session"), CHAINS.c.peer == bindparam("peer"))
    .with_for_update(of=CHAINS)
)
MOVE = (
    update(CHAINS)
    .where(CHAINS.c.chain == bindparam("moved"))
    .values({name: bindparam(name) for name in ("length", "hash", "time", "ended")})
)
HEADS = select(*CHAINS.c["chain", "session", "peer", "length", "hash"].values()).order_by(CHAINS.c.chain)
ENTRIES = (
    select(*READ)
    .where(LEDGER.c.chain == bindparam("chain"), LEDGER.c.position > bindparam("after"))
    .order_by(LEDGER.c.position)
    .limit(PAGE)
)
OF_SESSIONS = LEDGER.c.chain != tables.OWN_CHAIN
COUNTED = select(func.coalesce(func.sum(CHAINS.c.length), 0)).where(CHAINS.c.chain != tables.OWN_CHAIN)
CROSSED = (
    select(*LEDGER.c["direction", "kind"].values(), func.sum(LEDGER.c.size))
    .where(LEDGER.c.matter == "delivered", OF_SESSIONS)
    .group_by(LEDGER.c.direction, LEDGER.c.kind)
    .order_by(LEDGER.c.direction, LEDGER.c.kind)
)
CROSSED_SINCE = (
    select(*LEDGER.c["direction", "peer", "kind"].values(), func.sum(LEDGER.c.size))
    .where(LEDGER.c.matter == "delivered", OF_SESSIONS, LEDGER.c.time >= bindparam("since"))
    .group_by(LEDGER.c.direction, LEDGER.c.peer, LEDGER.c.kind)
    .order_by(LEDGER.c.direction, LEDGER.c.peer, LEDGER.c.kind)
)
OF_MATTER = (
    select(*READ).where(LEDGER.c.matter == bindparam("matter"), OF_SESSIONS).order_by(LEDGER.c.chain, LEDGER.c.position)
)
LATEST = (
    select(*READ)
    .where(OF_SESSIONS)
    .order_by(LEDGER.c.time.desc(), LEDGER.c.chain.desc(), LEDGER.c.position.desc())
    .limit(bindparam("tail"))
)
STANDS = select(LEDGER.c.position).where(LEDGER.c.identity == bindparam("identity"))
TORN = (
    select(*CHAINS.c["session", "peer", "length"].values())
    .select_from(CHAINS.outerjoin(LEDGER, LAST))
    .where(
        or_(
            and_(CHAINS.c.length > 0, LEDGER.c.hash.is_distinct_from(CHAINS.c.hash)),
            and_(CHAINS.c.length == 0, CHAINS.c.chain != tables.OWN_CHAIN),
            exists().where(LEDGER.c.chain == CHAINS.c.chain, LEDGER.c.position >= CHAINS.c.length).correlate(CHAINS),
        )
    )
    .limit(1)
)
"""A chain that does not end where it should."""
REMOVED = (
    select(*LEDGER.c["session", "peer", "position"].values())
    .select_from(LEDGER.outerjoin(CHAINS, and_(CHAINS.c.session == LEDGER.c.session, CHAINS.c.peer == LEDGER.c.peer)))
    .where(LEDGER.c.chain == tables.OWN_CHAIN, LEDGER.c.matter == "chain-opened", CHAINS.c.chain.is_(None))
    .limit(1)
)
"""A chain that was opened and is not there."""


@cache
def prepared(kind: Any) -> tuple[Prepared, Prepared, Prepared]:
    """What is executed for every entry: adds one, reads a chain's tail, moves it."""
    dialect: Dialect = kind()
    upsert = upsert_of(dialect.name)
    add = upsert(LEDGER).on_conflict_do_nothing(index_elements=["identity"])
    return Prepared(add, dialect, LEDGER.c.keys()), Prepared(TAIL, dialect), Prepared(MOVE, dialect)
