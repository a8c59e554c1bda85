"""Where a session ends: on either side, with or without a network, well or not, there is no other place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from comity.contract import Contract, Json
from comity.errors import ComityError, RefusedError, SessionCancelled, SessionFailed
from comity.ledger.ledger import Fact
from comity.node.artifacts.keeping import keep_models, kept, write_whole
from comity.node.party import LocalParty
from comity.node.sessions.comparing import compared
from comity.node.sessions.failures import failure
from comity.node.sessions.result import SessionResult, with_comparison
from comity.node.sessions.summarizing import summarize
from comity.protocol.registry import protocol
from comity.session import log_context
from comity.session.events import Event, Observer, ignore
from comity.session.outcome import Outcome
from comity.session.waiting import APPROVAL
from comity.store.store import SessionState, StoredSession, Waiting
from comity.transport.sessions import Ending

log = structlog.get_logger()

Tell = Callable[[Ending], bool]
"""Tells the peers of a session how it ended; returns whether all of them heard it."""


def peers_know(ending: Ending) -> bool:
    """For sessions whose peers know, or find out in another way."""
    del ending
    return True


class SessionEnds:
    """Ends the sessions of a party, each once: a session that is over stays as it ended.

    In this order: the peers are told, the party is compared with itself alone, the models and the result are written, the ledger and the store say that it is
    over, blobs and journal go, and observers are told. A node that is killed in between does it again.

    Args:
        party: This party.
    """

    def __init__(self, party: LocalParty) -> None:
        self._party = party

    def finish(
        self,
        contract: Contract,
        observe: Observer = ignore,
        *,
        outcome: Outcome | None = None,
        tell: Tell = peers_know,
    ) -> SessionResult | None:
        """Ends a session that came to its end.

        Args:
            contract: Its contract.
            observe: Is told.
            outcome: What it came to; None at a party that has nothing of it but its rounds.
            tell: Tells the peers that do not know yet.

        Returns:
            What it came to.

        Raises:
            TransportError: A peer could not be told; the session is as it was.
            StorageError: What it came to cannot be kept; likewise.
        """
        tell("finished")
        result = None
        if outcome is not None:
            result = summarize(contract, outcome, self._party, self._seconds(contract.session))
            result = with_comparison(result, compared(self._party, contract, outcome, result.wall_s, observe))
            keep_files(self._party, contract, outcome, result)
            self._party.watchers.finished(contract, result, files_of(self._party, contract.session))
        fields = self._end(contract.session, "finished", {} if result is None else result.to_json())
        if fields is not None:
            observe(protocol(contract.protocol).finished(contract, fields if result is None else result.to_json()))
        return result

    def fail(
        self,
        session: str,
        error: ComityError,
        observe: Observer = ignore,
        *,
        tell: Tell = peers_know,
        so_far: tuple[Contract, Outcome] | None = None,
    ) -> bool:
        """Ends a session that does not come to its end; returns whether every peer was told.

        A proposal that was refused ends as `refused` at both sides; a session that was cancelled as `cancelled`, and any
        other as `failed`.

        Args:
            session: Its identifier.
            error: Why.
            observe: Is told.
            tell: Tells the peers that do not know yet; those that are away find out when they call.
            so_far: Its contract, and what it came to until then, which is kept: the rounds until then were bought.
        """
        ending: Ending = "cancelled" if isinstance(error, SessionCancelled) else "failed"
        told = tell(ending)
        state = "refused" if isinstance(error, RefusedError) and self._is_proposal(session) else ending
        why = failure(error) | (self._kept(*so_far) if so_far is not None else {})
        if self._end(session, state, why) is not None:
            observe(Event(f"session-{state}", 0, why))
        return told

    def _kept(self, contract: Contract, outcome: Outcome) -> dict[str, Json]:
        """Keeps what a session came to that ends early; says what that is."""
        party, session = self._party, contract.session
        try:
            result = summarize(contract, outcome, party, self._seconds(session))
            keep_files(party, contract, outcome, result)
        except (ComityError, OSError) as error:
            log.warning("nothing-kept", session=session, error=str(error))
            return {}
        rounds = party.rounds_finished(session)
        return {"kept": {"digest": result.digest, "rounds": rounds, "metrics": result.metrics}}

    def _is_proposal(self, session: str) -> bool:
        """Whether nothing has been agreed on yet: no peer is known, or this node's operator still has to decide."""
        kept = self._party.store.find(session)
        return kept is not None and (not kept.peers or any(each.reason == APPROVAL.name for each in kept.waits))

    def _seconds(self, session: str) -> float:
        kept = self._party.store.find(session)
        if kept is None or not kept.begun:
            return 0.0
        return (datetime.now(UTC) - datetime.fromisoformat(kept.begun)).total_seconds()

    def _end(self, session: str, ending: SessionState, result: Mapping[str, Json]) -> Mapping[str, Json] | None:
        """Keeps how a session ended, and drops what only its rounds needed; None for one that is over already."""
        party = self._party
        with party.store.transaction():
            kept = party.store.find(session)
            if kept is None or not kept.is_on:
                return None
            ended = {**result, "rounds_finished": party.rounds_finished(session)}
            for chain in party.store.chains(session):
                party.store.record(Fact("ended", session, peer=chain.name.peer))
            party.store.save(replace(kept, state=ending, result=ended, waits=()))
        if not party.config.audit.keep:
            # Else comity gc does: an audit goes by what the session did with what came.
            party.blobs.drop(session)
            party.store.forget(session)
        party.leave(session)
        party.watchers.ended(session, ending, ended)
        log.info("session-ended", session=session, ending=ending)
        log_context.end(session)
        return ended


def ended_by(peer: str, ending: Ending) -> ComityError:
    """Why a session is over that a peer ended before its time."""
    if ending == "cancelled":
        return SessionCancelled(
            f"the session was cancelled by {peer}'s operator", action="ask them why, and begin a new one"
        )
    return SessionFailed(f"{peer} could not go on with the session", action="its operator finds the reason there")


def waited_too_long(waiting: Waiting, error: type[ComityError]) -> ComityError:
    """Why a session is over that has waited longer than policy lets it."""
    return error(
        f"the session has waited too long for {waiting.waits_for}",
        expected="policy.max_wait_s at most",
        received=f"since {waiting.since}",
        action="propose it again as a new session, once they have time for it",
    )


def is_past(session: StoredSession, now: datetime) -> bool:
    """Whether a session is not valid any more, by its contract."""
    most_s = session.contract.get("max_duration_s")
    if not isinstance(most_s, int | float) or not session.begun:
        return False
    return (now - datetime.fromisoformat(session.begun)).total_seconds() > most_s


def valid_no_more(session: StoredSession) -> ComityError:
    """Why a session is over that went on for as long as its contract says."""
    return SessionFailed(
        "the session is not valid any more",
        expected=f"its end within {session.contract['max_duration_s']:g} s, by its contract",
        received=f"begun {session.begun}",
        action="begin a new session, with a longer session.max_duration_s where both sides want that",
    )


def silent_too_long() -> ComityError:
    """Why a session is over whose initiator has not called for longer than its contract says."""
    return SessionFailed(
        "the session's initiator does not call any more",
        expected="a call within the contract's max_silence_s",
        received="none",
        action="propose a new session",
    )


def own_wish() -> SessionCancelled:
    """Why a session is over that this node's own operator does not want any more."""
    return SessionCancelled(
        "the session was cancelled by this node's operator", action="comity run begins another; this one is over"
    )


def keep_files(party: LocalParty, contract: Contract, outcome: Outcome, result: SessionResult) -> None:
    """Writes a session's models and its result to files in the party's `state_dir`, each whole or not at all.

    Args:
        party: The party; one that keeps nothing has no files.
        contract: The session's contract.
        outcome: What it came to.
        result: The same, as it is reported.
    """
    folder = files_of(party, contract.session)
    if folder is None:
        return
    keep_models(folder, kept(party, contract, outcome))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "result.json", [json.dumps(result.to_json(), indent=2).encode()])


def files_of(party: LocalParty, session: str) -> Path | None:
    """Where the files of a session are; None at a party that keeps nothing."""
    return None if party.folder is None else party.folder / "sessions" / session
