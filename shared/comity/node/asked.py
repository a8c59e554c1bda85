"""The sessions in which a node asks, each in a thread of its own."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import structlog

from comity.contract import Contract
from comity.errors import ComityError, InvalidValue, StorageError, TransportError
from comity.node.asking import run_session, stored, stored_contract
from comity.node.config import NodeConfig
from comity.node.party import LocalParty
from comity.node.result import SessionResult
from comity.session.events import Event, Json, Observer
from comity.session.ledger import Fact
from comity.session.outcome import Outcome
from comity.session.store import SessionState
from comity.session.watched import WatchedLog
from comity.transport.link import Link
from comity.transport.protocol import ProtocolDefinition

log = structlog.get_logger()


class AskedSessions:
    """The sessions of an asking node, by identifier.

    Args:
        party: This party.
        config: Its configuration: whom it asks, where, and how patiently.
    """

    def __init__(self, party: LocalParty, config: NodeConfig) -> None:
        self._party = party
        self._config = config
        self._events: dict[str, WatchedLog[Event]] = {}

    def restore(self, role: str) -> None:
        """Takes up the sessions that were on when the node stopped."""
        for kept in self._party.store.sessions():
            if kept.state != "active" or kept.own["role"] != role:
                continue
            contract, definition = stored_contract(kept)
            if definition.asker == role:
                log.info("session-resumed", session=kept.session)
                self._start(contract, definition)

    def start(self, contract: Contract, definition: ProtocolDefinition) -> None:
        """Starts a session.

        Raises:
            InvalidValue: Its helper is no configured peer, or its identifier is taken.
        """
        helper = contract.helpers[0]
        if helper not in self._config.peers:
            raise InvalidValue(
                "session.helpers names an unknown peer",
                expected=", ".join(self._config.peers) or "none",
                received=helper,
                action=f"configure [peers.{helper}] with its address",
            )
        if any(each.session == contract.session for each in self._party.store.sessions()):
            action = "leave out session.id, or give another"
            raise InvalidValue(
                "the session's id is taken", expected="a new id", received=contract.session, action=action
            )
        own = self._party.membership(definition.asker)
        self._party.store.save(replace(stored(contract, own, own), peer={}))
        self._start(contract, definition)

    def events(self) -> dict[str, WatchedLog[Event]]:
        """The events of every session since the node started."""
        return dict(self._events)

    def _start(self, contract: Contract, definition: ProtocolDefinition) -> None:
        self._events[contract.session] = WatchedLog()
        work = threading.Thread(
            target=self._work, args=(contract, definition), name=f"session-{contract.session}", daemon=True
        )
        work.start()

    def _work(self, contract: Contract, definition: ProtocolDefinition) -> None:
        helper = contract.helpers[0]
        try:
            address = self._config.peers[helper].address
            with Link(self._config.identity, helper, address, self._config.link_patience) as link:
                result, outcome = run_session(contract, definition, self._party, link, self._observer(contract))
            self._finish(contract, definition, result, outcome)
        except (TransportError, StorageError) as error:
            # Not the session's fault: it is taken up again when the node is started again.
            self._observe(contract, Event("session-failed", 0, failure(error)))
        except ComityError as error:
            self._keep_state(contract, definition, "failed", failure(error))
            self._observe(contract, Event("session-failed", 0, failure(error)))
        except Exception as error:
            log.exception("session-failed", session=contract.session)
            self._observe(contract, Event("session-failed", 0, {"what": f"{type(error).__name__}: {error}"}))
        finally:
            self._events[contract.session].close()

    def _finish(
        self, contract: Contract, definition: ProtocolDefinition, result: SessionResult, outcome: Outcome
    ) -> None:
        folder = self._config.state_dir / "sessions" / contract.session
        folder.mkdir(parents=True, exist_ok=True)
        for index, model in enumerate(outcome.models):
            name = "model.safetensors" if len(outcome.models) == 1 else f"model-{index}.safetensors"
            _write(folder / name, model.data)
        _write(folder / "result.json", json.dumps(result.to_json(), indent=2).encode())
        self._keep_state(contract, definition, "finished", result.to_json())
        self._party.clear(contract.session)
        self._observe(contract, Event("session-finished", 0, {"result": result.to_json()}))

    def _keep_state(
        self, contract: Contract, definition: ProtocolDefinition, state: SessionState, result: dict[str, Json]
    ) -> None:
        store = self._party.store
        own = self._party.membership(definition.asker)
        kept = next((each for each in store.sessions() if each.session == contract.session), None)
        peer = kept.peer if kept is not None else {}
        with store.transaction():
            store.record(Fact("ended", contract.session, 0, contract.helpers[0]))
            store.save(replace(stored(contract, own, own), peer=peer, state=state, result=result))

    def _observer(self, contract: Contract) -> Observer:
        return lambda event: self._observe(contract, event)

    def _observe(self, contract: Contract, event: Event) -> None:
        log.info(event.kind, session=contract.session, round=event.round, **event.fields)
        self._events[contract.session].append(event)


def _write(path: Path, data: bytes | memoryview) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def failure(error: ComityError) -> dict[str, Json]:
    """An error as fields, from which the other end raises it again."""
    fields: dict[str, Json] = {"reason": error.reason(), "what": error.what, "action": error.action}
    return fields | {
        name: value for name, value in (("expected", error.expected), ("received", error.received)) if value
    }
