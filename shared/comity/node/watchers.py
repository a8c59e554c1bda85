"""Who is told what happens in a party's sessions, beside their observers: metrics, traces and trackers of experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from comity.contract import Contract, Json
from comity.session.events import Event

if TYPE_CHECKING:
    # Which knows parties, and they this.
    from comity.node.sessions.result import SessionResult

log = structlog.get_logger()


class SessionWatcher:
    """Is told; a subclass takes what it wants. Each must return soon: a session's own thread tells it."""

    def entered(self, contract: Contract, party: str) -> None:
        """A session is worked on from now on, also again after a restart.

        Args:
            contract: What was agreed.
            party: This party.
        """

    def happened(self, contract: Contract, event: Event) -> None:
        """Something happened in it."""

    def finished(self, contract: Contract, result: SessionResult, folder: Path | None) -> None:
        """It came to something; its models are in the folder, None where nothing is kept."""

    def ended(self, session: str, state: str, why: Mapping[str, Json]) -> None:
        """It is over."""


class Watchers:
    """Those of one party. One that fails is said once in the log, and hears no more; the sessions go on."""

    def __init__(self) -> None:
        self._watchers: list[SessionWatcher] = []

    @contextmanager
    def added(self, watcher: SessionWatcher) -> Iterator[None]:
        """Has a watcher be told until the block is left."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            with suppress(ValueError):
                self._watchers.remove(watcher)

    def entered(self, contract: Contract, party: str) -> None:
        """See `SessionWatcher.entered`."""
        self._tell(contract.session, lambda watcher: watcher.entered(contract, party))

    def happened(self, contract: Contract, event: Event) -> None:
        """See `SessionWatcher.happened`."""
        self._tell(contract.session, lambda watcher: watcher.happened(contract, event))

    def finished(self, contract: Contract, result: SessionResult, folder: Path | None) -> None:
        """See `SessionWatcher.finished`."""
        self._tell(contract.session, lambda watcher: watcher.finished(contract, result, folder))

    def ended(self, session: str, state: str, why: Mapping[str, Json]) -> None:
        """See `SessionWatcher.ended`."""
        self._tell(session, lambda watcher: watcher.ended(session, state, why))

    def _tell(self, session: str, tell: Callable[[SessionWatcher], Any]) -> None:
        for watcher in self._watchers.copy():
            try:
                tell(watcher)
            except Exception as error:
                # Another session's thread may have met the same, and taken it off already.
                with suppress(ValueError):
                    self._watchers.remove(watcher)
                log.exception("watcher-failed", session=session, watcher=type(watcher).__name__, error=str(error))
