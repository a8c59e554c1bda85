"""Who works on what in a node that helps, and what a call is told of a session that is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.errors import (
    ContractMismatch,
    NodeDraining,
    SessionCancelled,
    StorageFailed,
    UnknownSession,
)
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.worker import InlineWorker
from comity.store.store import StoredSession


@pytest.fixture
def pair(make_pair: Callable[..., Any]) -> Any:
    """Both contexts of a session, and the stores behind them."""
    return make_pair()


@pytest.fixture
def accepted(pair: Any) -> AcceptedSession:
    """The hospital's session with the clinic."""
    return AcceptedSession(pair.acceptor, object(), InlineWorker(None, ""))  # type: ignore[arg-type]


@pytest.fixture
def registry(pair: Any, accepted: AcceptedSession) -> SessionRegistry:
    """A node that works on it."""
    registry = SessionRegistry(pair.acceptor_store)
    registry.add(accepted)
    return registry


def test_a_call_finds_its_session(registry: SessionRegistry, accepted: AcceptedSession) -> None:
    contract = accepted.contract
    found = registry.get(contract.session, "clinic", contract.hash, contract.protocol)
    assert found.context is accepted.context
    with pytest.raises(UnknownSession):
        registry.get(contract.session, "bank", contract.hash)
    with pytest.raises(UnknownSession):
        registry.get(contract.session, "clinic", contract.hash, "another protocol")
    with pytest.raises(ContractMismatch):
        registry.get(contract.session, "clinic", "0" * 64)


def test_whoever_leaves_may_come_back(registry: SessionRegistry, accepted: AcceptedSession) -> None:
    contract = accepted.contract
    registry.leave(contract.session, "clinic")
    with pytest.raises(UnknownSession):
        registry.get(contract.session, "clinic", contract.hash)
    active = registry.find(contract.session)
    assert active is not None
    active.left.discard("clinic")
    registry.get(contract.session, "clinic", contract.hash)


def test_that_a_session_was_cancelled_is_told_to_its_peers_alone(
    registry: SessionRegistry, accepted: AcceptedSession, pair: Any
) -> None:
    contract = accepted.contract
    peers = (accepted.context.peer.model_dump(mode="json"),)
    pair.acceptor_store.save(StoredSession(contract.session, {}, {}, peers, "cancelled"))
    registry.remove(contract.session)
    # Also by a node that has been started again.
    for each in (registry, SessionRegistry(pair.acceptor_store)):
        with pytest.raises(SessionCancelled):
            each.get(contract.session, "clinic", contract.hash)
        with pytest.raises(UnknownSession):
            each.get(contract.session, "bank", contract.hash)


@pytest.mark.parametrize("error", [UnknownSession("its ledger is closed"), StorageFailed("its folder is gone")])
def test_a_call_during_which_a_session_ends_is_made_again(
    registry: SessionRegistry, accepted: AcceptedSession, error: Exception
) -> None:
    with pytest.raises(type(error)), accepted.told_of_its_end():
        raise error
    registry.remove(accepted.contract.session)
    with pytest.raises(NodeDraining), accepted.told_of_its_end():
        raise error
    with pytest.raises(NodeDraining):
        _ = accepted.gate


def test_a_node_that_stops_takes_nothing_new(registry: SessionRegistry, accepted: AcceptedSession) -> None:
    assert registry.queues() == {accepted.contract.session: 0}
    registry.require_open()
    registry.drain()
    with pytest.raises(NodeDraining):
        registry.require_open()
    with pytest.raises(NodeDraining):
        accepted.require_running()
