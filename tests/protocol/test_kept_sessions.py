"""Sessions of a protocol whose package does not work any more: they stay as they are, and the node works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from comity.contract import Contract, Membership, Terms
from comity.node.config import NodeConfig
from comity.node.config_sections import PeerConfig
from comity.node.control_client import ControlClient
from comity.node.daemon import Node
from comity.node.sessions.initiator import stored
from comity.protocol.registry import protocol
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.tasks.classification import classification
from tests.protocol.conftest import DEFINITION, IMPLEMENTATION, Install, forget

ENTRY = "[comity.protocols]\nfading = fadepkg.definition:PROTOCOL\n"


def keep_a_session(state: Path, role: str, party: str) -> None:
    """Keeps an active session of the protocol at a party."""
    contract = Contract(
        protocol="fading",
        version=1,
        session="s-1",
        seed=0,
        rounds=1,
        models={},
        task=classification((4,), 2),
        initiator="clinic",
        acceptors=("hospital",),
        egress=protocol("fading").egress,
        terms=Terms(),
    )
    parts = {
        name: Membership(party=name, role=role, samples=0, receipt_key="0" * 64)
        for name, role in (("clinic", "analyst"), ("hospital", "site"))
    }
    own = parts.pop(party)
    assert own.role == role
    with closing(SqlStore(store_url(state))) as store:
        store.save(stored(contract, own, *parts.values()))


@contextmanager
def serving(role: str, config: NodeConfig) -> Iterator[ControlClient]:
    """A node that runs in this process."""
    stop, errors = threading.Event(), []

    def serve() -> None:
        try:
            Node(role, config).serve(stop)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        while not config.control_socket.exists():
            thread.join(0.02)
            assert thread.is_alive(), errors
        with ControlClient(f"unix:{config.control_socket}") as control:
            yield control
    finally:
        stop.set()
        thread.join()
    assert not errors


@pytest.mark.parametrize(("role", "party"), [("site", "hospital"), ("analyst", "clinic")])
@pytest.mark.parametrize("breaks", ["definition", "implementation"])
def test_a_node_works_without_a_package_that_it_had(
    install: Install, tmp_path: Path, role: str, party: str, breaks: str
) -> None:
    text = DEFINITION.format(name="fading", package="fadepkg", extensions="")
    text = text.replace('"wisher"', '"analyst"').replace('"giver"', '"site"')
    working = IMPLEMENTATION.format(service="fadepkg")
    site = install("fadepkg", ENTRY, definition=text, implementation=working)
    peers = {"hospital": PeerConfig(address="127.0.0.1:1")}
    config = NodeConfig(party=party, state_dir=tmp_path, listen="127.0.0.1:0", insecure=True, peers=peers)
    keep_a_session(tmp_path, role, party)
    (site / "fadepkg" / f"{breaks}.py").write_text("raise RuntimeError('does not work any more')")
    forget("fadepkg")
    with serving(role, config) as control:
        assert [each.session for each in control.sessions()] == ["s-1"]
        assert list(control.describe().protocols) == ["federated_count"]
        control.cancel("s-1")
        (kept,) = control.sessions()
        assert kept.state == "cancelled"
