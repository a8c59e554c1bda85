"""A session's journal: what is done and need not be done again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from comity import faults
from comity.contract import Json
from comity.store.store import Record, Store


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
        """The records in order."""
        return self.store.records(self.session)

    def transaction(self) -> AbstractContextManager[None]:
        """See `Store.transaction`."""
        return self.store.transaction()

    def append(self, kind: str, round: int, **fields: Json) -> Record:
        """Adds a record, durably, and returns it."""
        record = Record(kind, round, fields)
        self.store.append(self.session, record)
        faults.point("commit")
        return record
