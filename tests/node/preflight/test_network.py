"""Peers that cannot be reached, are not trusted, or are of another version or another time."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from teacher_votes.definition import PROTOCOL

from comity import version
from comity.transport.certificates import Authority
from comity.transport.description import Describe, Description, describing
from comity.transport.identity import Identity
from comity.transport.server import NodeServer

Peer = Callable[..., str]

PROTOCOLS = {PROTOCOL.name: PROTOCOL.version}


@pytest.fixture
def peer(serve: Callable[..., Any], authority: Authority, tmp_path: Any) -> Peer:
    """Serves as hospital, as somebody who certifies it, and describes it in some way; gives its address."""

    def start(by: Authority = authority, **describe: Any) -> str:
        address: str = serve(identity=by.issue("hospital", tmp_path / "hospital"), **describe).address
        return address

    return start


def saying(**changes: Any) -> Describe:
    """A peer that differs in something."""
    told = Description("hospital", "teacher", version(), PROTOCOLS, datetime.now(UTC))
    return lambda: dataclasses.replace(told, **({"time": datetime.now(UTC)} | changes))


def ask(home: Any, **addresses: str) -> Any:
    home.values["peers"] = {party: {"address": address} for party, address in addresses.items()}
    return home.check()


@pytest.fixture
def clinic(make_home: Callable[..., Any]) -> Any:
    """A student."""
    return make_home("clinic", role="student")


@pytest.fixture
def closed() -> Iterator[str]:
    """An address at which nobody listens, and nobody can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_a_peer_that_is_there(clinic: Any, peer: Peer) -> None:
    found = ask(clinic, hospital=peer())
    assert found.code == 0
    rows = {row.check.removeprefix("peer hospital: "): row for row in found.rows if row.check.startswith("peer ")}
    assert list(rows) == ["network", "certificate", "version", "protocols", "clock"]
    assert {row.verdict for row in rows.values()} == {"passed"}
    assert "127.0.0.1" in rows["network"].found
    assert rows["version"].found == f"{version()} on both sides"
    assert rows["protocols"].found == "in common: teacher_votes 1"
    assert "warned over 5 s, at most 60 s" in rows["clock"].found


def test_nobody_to_ask(clinic: Any) -> None:
    clinic.check().only("peers", "there is no peer to ask", "configure whom the node asks")


def test_a_peer_at_whose_address_nobody_answers(clinic: Any, closed: str, peer: Peer) -> None:
    found = ask(clinic, hospital=peer(), bank=closed)
    found.only("peer bank: network", f"nothing answers at {closed}", "check that its node runs", code=1)
    assert found["peer hospital: clock"].verdict == "passed"


def test_a_name_that_does_not_resolve(clinic: Any) -> None:
    ask(clinic, hospital="nowhere.invalid:5500").only("peer hospital: network", "nowhere.invalid", "[peers]", code=1)


def test_an_address_that_is_none(clinic: Any) -> None:
    ask(clinic, hospital="example.org").only("peer hospital: address", "expected host:port", code=2)


def test_a_peer_that_this_node_does_not_trust(clinic: Any, peer: Peer) -> None:
    found = ask(clinic, hospital=peer(Authority.create()))
    found.only("peer hospital: certificate", "not accepted here", "tls.trust", code=1)


def test_a_peer_that_does_not_trust_this_node(make_home: Callable[..., Any], peer: Peer, authority: Authority) -> None:
    other = Authority.create()
    home = make_home("clinic", role="student", by=other)
    address = peer()
    home.identity.trust.write_bytes(authority.issue("any", home.folder / "any").trust.read_bytes())  # type: ignore[union-attr]
    ask(home, hospital=address).only(
        "peer hospital: certificate",
        "hospital does not accept our certificate",
        "have hospital run comity trust add",
        code=1,
    )


def test_a_node_without_a_usable_key_blames_no_peer(clinic: Any, peer: Peer) -> None:
    address = peer()
    clinic.identity.key.write_text("nothing")
    found = ask(clinic, hospital=address)
    found.only("keys", "a private key in PEM")
    assert found["peer hospital: answer"].verdict == "skipped"


def test_a_peer_that_is_somebody_else(clinic: Any, serve: Callable[..., Any]) -> None:
    clinic.values["insecure"] = True
    del clinic.values["tls"]
    found = ask(clinic, hospital=serve(describe=describing("bank", "teacher", PROTOCOLS)).address)
    found.only("peer hospital: answer", "expected hospital, received bank", "check whose node", code=1)


def test_a_peer_of_another_version(clinic: Any, peer: Peer) -> None:
    found = ask(clinic, hospital=peer(describe=saying(version="9.9")))
    assert found.code == 0
    row = found["peer hospital: version"]
    assert (row.verdict, row.found) == ("warning", f"{version()} here, 9.9 there")
    assert found["peer hospital: protocols"].verdict == "passed"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"protocols": {PROTOCOL.name: PROTOCOL.version + 1}}, "teacher_votes 2"),
        ({"protocols": {}}, "with none"),
        ({"role": "student"}, "there a student"),
    ],
)
def test_a_peer_that_cannot_help(clinic: Any, peer: Peer, changes: dict[str, Any], part: str) -> None:
    found = ask(clinic, hospital=peer(describe=saying(**changes)))
    found.only("peer hospital: protocols", "none in common: teacher_votes 1", part, "the same version", code=1)


@pytest.mark.parametrize(
    ("seconds", "verdict", "direction"),
    [
        (2, "passed", "ahead of"),
        (-2, "passed", "behind"),
        (20, "warning", "ahead of"),
        (-20, "warning", "behind"),
        (120, "failed", "ahead of"),
        (-120, "failed", "behind"),
    ],
)
def test_a_clock_that_is_wrong(clinic: Any, peer: Peer, seconds: int, verdict: str, direction: str) -> None:
    says = describing("hospital", "teacher", PROTOCOLS, clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds))
    found = ask(clinic, hospital=peer(describe=says))
    row = found["peer hospital: clock"]
    assert row.verdict == verdict
    assert f" s {direction} ours" in row.found
    assert abs(float(row.found.split()[0]) - abs(seconds)) < 1
    assert found.code == (1 if verdict == "failed" else 0)


@pytest.fixture
def older(authority: Authority, tmp_path: Any) -> Iterator[str]:
    """A node of a version that does not describe itself."""
    identity: Identity = authority.issue("hospital", tmp_path / "older")
    server = NodeServer(identity, [])
    yield server.start("127.0.0.1:0")
    server.stop(0)


def test_a_peer_too_old_to_describe_itself(clinic: Any, older: str) -> None:
    found = ask(clinic, hospital=older)
    assert found["peer hospital: version"].verdict == "warning"
    assert "upgrade" in found["peer hospital: version"].action
    assert found.code == 0
