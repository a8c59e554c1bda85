"""The sessions of a node that does not run, read from what it keeps. Imports no torch, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from comity.node.control_messages import details_to_proto, summary_to_proto
from comity.node.sessions.overview import detailed, past_events, summarized
from comity.session.events import Event
from comity.store.sql_store import SqlStore
from comity.wire.v1 import control_pb2 as pb


class StateReader:
    """Answers what `ControlClient` answers of sessions, from the node's store.

    Args:
        url: The store.

    Raises:
        MissingFile: There is none.
        StorageError: It cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._store = SqlStore(url, read_only=True)

    def __enter__(self) -> Self:
        """The reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of the store."""
        self._store.close()

    def sessions(self) -> Sequence[pb.SessionSummary]:
        """Every session of the node, oldest first. None is active: those that are not over are stopped."""
        return [summary_to_proto(each) for each in summarized(self._store, ())]

    def details(self, session: str) -> pb.SessionDetails:
        """One session."""
        return details_to_proto(detailed(self._store, (), session))

    def watch(self, session: str) -> Iterator[Event]:
        """What is left to tell of a session."""
        yield from past_events(self._store, session)
