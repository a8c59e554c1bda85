"""What an operator sees of the sessions that a node keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from comity.contract import Json
from comity.errors import InvalidValue
from comity.ledger.charges import charges_of, counted
from comity.ledger.ledger import bytes_by_kind
from comity.node.sessions.kept import stored_contract
from comity.session.events import Event, finished_rounds
from comity.session.waiting import began
from comity.store.store import Store, StoredSession, Waiting

_NONE: Mapping[str, str] = MappingProxyType({})

SeenState = Literal["running", "waiting", "stopped", "finished", "failed", "cancelled", "refused"]


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session in one line.

    Attributes:
        session: Identifier.
        protocol: Name of its protocol.
        role: What this node does in it.
        peers: The other parties.
        state: Whether it goes on; one that is stopped can be resumed.
        rounds: Rounds that were bought.
        rounds_finished: Rounds that this node is done with.
        begun: When this node entered it, UTC, ISO 8601.
        waits: What it waits for.
        why: Why it ended before its time, or stopped; empty where it did not, or where nobody remembers.
    """

    session: str
    protocol: str
    role: str
    peers: tuple[str, ...]
    state: SeenState
    rounds: int
    rounds_finished: int
    begun: str
    waits: tuple[Waiting, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class SessionDetails:
    """All there is to know of a session.

    Attributes:
        summary: The session in one line.
        contract_hash: Hash of its contract.
        contract: The contract.
        result: What it ended with: a result or a failure; empty while it goes on.
        bytes_sent: Bytes delivered so far, by egress kind.
        bytes_received: The same the other way.
        charged: What was bought and delivered so far, by the protocol's unit.
    """

    summary: SessionSummary
    contract_hash: str
    contract: Mapping[str, Json]
    result: Mapping[str, Json]
    bytes_sent: Mapping[str, int]
    bytes_received: Mapping[str, int]
    charged: Mapping[str, int]


def summarized(
    store: Store, running: Collection[str], stopped: Mapping[str, str] = _NONE, failed: Mapping[str, str] = _NONE
) -> list[SessionSummary]:
    """Every session of a node, oldest first.

    Args:
        store: What the node keeps.
        running: Identifiers of the active sessions.
        stopped: Why others have stopped, by identifier, as far as that is known.
        failed: Why active sessions can do nothing more, though they are not over: their peers have not been told.
    """
    return [_summary(store, kept, running, stopped, failed) for kept in store.sessions()]


def detailed(
    store: Store,
    running: Collection[str],
    session: str,
    stopped: Mapping[str, str] = _NONE,
    failed: Mapping[str, str] = _NONE,
) -> SessionDetails:
    """One session of a node; see `summarized`.

    Raises:
        InvalidValue: There is none of that identifier.
    """
    kept = _kept(store, session)
    contract, _ = stored_contract(kept)
    entries = list(store.entries(session))
    return SessionDetails(
        _summary(store, kept, running, stopped, failed),
        contract.hash,
        kept.contract,
        kept.result,
        bytes_by_kind(entries, "sent"),
        bytes_by_kind(entries, "received"),
        counted(charges_of(entries)),
    )


def past_events(store: Store, session: str) -> list[Event]:
    """What is left to tell of a session that is not active: the rounds that are finished, and how it ended.

    Raises:
        InvalidValue: There is none of that identifier.
    """
    kept = _kept(store, session)
    contract, definition = stored_contract(kept)
    started = definition.started(contract, str(kept.own["role"]), _peers(kept))
    events = [replace(started, time=datetime.fromisoformat(kept.begun)) if kept.begun else started]
    events += finished_rounds(store.records(session))
    match kept.state:
        case "waiting":
            events += [began(each) for each in kept.waits]
        case "active":
            what = {"what": "the session is not active", "action": "comity resume goes on with it"}
            events.append(Event("session-stopped", 0, what))
        case "finished":
            events.append(definition.finished(contract, kept.result))
        case ended:
            events.append(Event(f"session-{ended}", 0, kept.result))
    return events


def _kept(store: Store, session: str) -> StoredSession:
    kept = store.find(session)
    if kept is None:
        known = ", ".join(each.session for each in store.sessions()) or "none yet"
        raise InvalidValue(
            "no such session at this node", expected=known, received=session, action="comity sessions lists them"
        )
    return kept


def _summary(
    store: Store,
    kept: StoredSession,
    running: Collection[str],
    stopped: Mapping[str, str],
    failed: Mapping[str, str],
) -> SessionSummary:
    contract: Mapping[str, Any] = kept.contract
    result: Mapping[str, Any] = kept.result
    state: SeenState
    match kept.state:
        case "active" | "waiting" if kept.session in failed:
            state = "failed"
        case "active":
            state = "running" if kept.session in running else "stopped"
        case stands:
            state = stands
    if kept.is_on:
        finished = sum(record.kind == "finished" for record in store.records(kept.session))
    else:
        finished = result.get("rounds_finished", 0)
    own = str(kept.own["role"])
    why = str(result.get("what", "")) if state != "finished" else ""
    if state == "stopped":
        why = stopped.get(kept.session, "")
    elif kept.is_on:
        why = failed.get(kept.session, why)
    return SessionSummary(
        kept.session,
        contract["protocol"],
        own,
        tuple(_peers(kept)),
        state,
        contract["rounds"],
        finished,
        kept.begun,
        kept.waits,
        why,
    )


def _peers(kept: StoredSession) -> list[str]:
    contract: Mapping[str, Any] = kept.contract
    return [str(each["party"]) for each in kept.peers] or list(contract["acceptors"])
