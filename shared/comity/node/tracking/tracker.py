"""What is written of a session to a tracker, in a thread that nothing waits for."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from comity.contract import Contract, Json
from comity.node.sessions.result import SessionResult
from comity.node.watchers import SessionWatcher
from comity.protocol.curves import curves_of_rounds
from comity.protocol.registry import protocol
from comity.session.events import Event

log = structlog.get_logger()

_MOST_WAITING = 10_000
"""Things that are kept for a tracker that is away; beyond, the oldest go."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0
_MOST_TRIES = 3
"""How often something is tried that a tracker does not take while it can be reached; then it goes, and what comes after has its turn."""
_END_S = 10.0
"""How long a tracker may take, when the node stops, to write what is left, in seconds."""


class Backend(Protocol):
    """A kind of tracker. Everything may be said twice: after a failure it is tried again."""

    name: str

    def begin(self, session: str, about: Mapping[str, str], terms: Mapping[str, str], contract: str) -> None:
        """A session begins, or goes on after a restart.

        Args:
            session: Its identifier.
            about: What it is found by: protocol, parties, contract hash.
            terms: What was agreed, flat.
            contract: All of it, as JSON.
        """

    def numbers(self, session: str, round: int, values: Mapping[str, float], time_ms: int) -> None:
        """What a round came to."""

    def finish(self, session: str, result: SessionResult, folder: Path | None) -> None:
        """What the session came to, with the folder of its models."""

    def end(self, session: str, state: str, why: str) -> None:
        """The session is over."""

    def reach(self) -> None:
        """Raises where the tracker cannot be reached, so that a write that fails is told from a tracker that is away."""

    def forget(self, session: str) -> None:
        """Drops what is kept of a session since its last write, such as a run that may be gone: the next write looks anew."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclass(frozen=True, slots=True)
class _Write:
    """What is written, and of which session that is."""

    session: str
    write: Callable[[], None]


class Tracker(SessionWatcher):
    """Brings what happens to a tracker, in order, and again after a while where the tracker is away.

    That is said once in the log; the sessions go on. What a tracker does not take that can be reached is dropped after
    some tries, which is said once for each session: it holds up nothing else.

    Args:
        backend: The tracker.
        party: This party.
    """

    def __init__(self, backend: Backend, party: str) -> None:
        self._backend = backend
        self._party = party
        self._changed = threading.Condition()
        self._waiting: deque[_Write] = deque()
        self._is_closed = self._is_away = False
        self._dropped = 0
        # How often the first in turn was refused, and the sessions of which something was dropped.
        self._refusals = 0
        self._refused: set[str] = set()
        self._thread = threading.Thread(target=self._work, name=f"track-{backend.name}", daemon=True)

    def __enter__(self) -> Self:
        """Begins to write."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what is left, for a while."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(_END_S)

    def entered(self, contract: Contract, party: str) -> None:
        """See `SessionWatcher.entered`."""
        about = {
            "session": contract.session,
            "protocol": contract.protocol,
            "party": party,
            "initiator": contract.initiator or "",
            "acceptors": ", ".join(contract.acceptors),
            "contract": contract.hash,
        }
        whole: Any = json.loads(contract.model_dump_json())
        terms = flat({name: whole[name] for name in ("rounds", "seed", "models", "terms", "task") if name in whole})
        text = json.dumps(whole, indent=2)
        self._put(contract.session, lambda: self._backend.begin(contract.session, about, terms, text))

    def happened(self, contract: Contract, event: Event) -> None:
        """See `SessionWatcher.happened`."""
        if event.kind != "round-finished":
            return
        values = numbers_of(contract, event, self._party)
        time_ms = int(event.time.timestamp() * 1000)
        self._put(contract.session, lambda: self._backend.numbers(contract.session, event.round, values, time_ms))

    def finished(self, contract: Contract, result: SessionResult, folder: Path | None) -> None:
        """See `SessionWatcher.finished`."""
        self._put(contract.session, lambda: self._backend.finish(contract.session, result, folder))

    def ended(self, session: str, state: str, why: Mapping[str, Json]) -> None:
        """See `SessionWatcher.ended`."""
        what = "" if state == "finished" else str(why.get("what", ""))
        self._put(session, lambda: self._backend.end(session, state, what))

    def _put(self, session: str, write: Callable[[], None]) -> None:
        with self._changed:
            if len(self._waiting) >= _MOST_WAITING:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(_Write(session, write))
            self._changed.notify_all()

    def _work(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    break
                first = self._waiting[0]
            if self._is_done_with(first):
                pause_s, self._refusals = _FIRST_PAUSE_S, 0
                with self._changed:
                    # The oldest may have gone meanwhile, to make room.
                    if self._waiting and self._waiting[0] is first:
                        self._waiting.popleft()
                continue
            with self._changed:
                is_over = self._changed.wait_for(lambda: self._is_closed, pause_s)
            if is_over and self._is_away:
                break
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._close()

    def _is_done_with(self, first: _Write) -> bool:
        """Tries to write; whether what comes next has its turn."""
        name = self._backend.name
        try:
            first.write()
        except Exception as error:  # noqa: BLE001 - trackers raise what they like, and no session is to hear of it
            # A writer that is broken cannot be closed well.
            with suppress(Exception):
                self._backend.forget(first.session)
            if not self._is_reached():
                return False
            self._refusals += 1
            # One of whose session something was dropped is tried once, or each of its rounds would hold up all others.
            if self._refusals < _MOST_TRIES and first.session not in self._refused and not self._is_closed:
                return False
            self._dropped += 1
            if first.session not in self._refused:
                self._refused.add(first.session)
                action = "see at the tracker why; what else it takes of the session is written"
                log.warning(
                    "tracker-refuses", tracker=name, tracked=first.session, error=_line_of(error), action=action
                )
            return True
        self._refused.discard(first.session)
        self._say_back()
        return True

    def _is_reached(self) -> bool:
        name = self._backend.name
        try:
            self._backend.reach()
        except Exception as error:  # noqa: BLE001 - see above
            if not self._is_away:
                self._is_away = True
                action = f"correct tracking.{name}, or bring it back: what is not written yet is then written"
                log.warning("tracker-away", tracker=name, error=_line_of(error), action=action)
            return False
        self._say_back()
        return True

    def _say_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("tracker-back", tracker=self._backend.name, lost=self._dropped)

    def _close(self) -> None:
        left = len(self._waiting) + self._dropped
        if left:
            log.warning("not-tracked", tracker=self._backend.name, lost=left)
        try:
            self._backend.close()
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("tracker-away", tracker=self._backend.name, error=str(error))


def _line_of(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300] if said else ''}"


def numbers_of(contract: Contract, event: Event, party: str) -> dict[str, float]:
    """The numbers of a round that is finished, by their fields; of one with a line for each class, `field/class`."""
    definition = protocol(contract.protocol)
    role = definition.acceptor if party in contract.acceptors else definition.initiator
    values = {}
    for curve in curves_of_rounds([definition.started(contract, role, ()), event]):
        for line, (value, *_) in curve.lines.items():
            if value is not None:
                values[f"{curve.column.field}/{line}" if line else curve.column.field] = value
    for name in ("bytes_sent", "bytes_received"):
        size = event.fields.get(name)
        if isinstance(size, int):
            values[name] = float(size)
    return values


def flat(value: object, above: str = "") -> dict[str, str]:
    """Nested values as one table, `terms.batch_size`."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for name, each in value.items():
            found |= flat(each, f"{above}.{name}" if above else str(name))
        return found
    return {above: value if isinstance(value, str) else json.dumps(value)}
