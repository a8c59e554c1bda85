"""A session's journal: what is done and need not be done again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from comity import faults
from comity.contract import Json
from comity.store.store import Record, Store

DATA = "node: data"
"""Kind of the record that says with which data a session was entered; it is the node's, and no role sees it."""


class Journal:
    """The records of one session.

    Args:
        store: Where they are kept.
        session: The session.
    """

    def __init__(self, store: Store, session: str) -> None:
        self.store = store
        self.session = session

    def records(self) -> Sequence[Record]:
        """The role's records in order."""
        return [each for each in self.store.records(self.session) if each.kind != DATA]

    @property
    def data(self) -> str | None:
        """Digest of the data that the session was entered with; None where it was not yet, or has none."""
        kept = [each for each in self.store.records(self.session) if each.kind == DATA]
        return str(kept[0].fields["digest"]) if kept else None

    def keep_data(self, digest: str) -> None:
        """Notes with which data the session is entered."""
        self.store.append(self.session, Record(DATA, 0, {"digest": digest}))

    def transaction(self) -> AbstractContextManager[None]:
        """See `Store.transaction`."""
        return self.store.transaction()

    def append(self, kind: str, round: int, **fields: Json) -> Record:
        """Adds a record and returns it."""
        record = Record(kind, round, fields, datetime.now(UTC).isoformat(timespec="milliseconds"))
        self.store.append(self.session, record)
        faults.point("commit")
        return record
