"""Gradient rewards between daemons: the demo in small, what operators see and do, and clients that cheat over real TLS."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from blake3 import blake3

from comity.errors import ComityError, InvalidValue, UnexpectedBlob, UnknownBlob, UnknownSession
from comity.experiments import demo_script
from comity.ledger.comparison import compare
from comity.ledger.ledger import Head, in_round, loaded
from comity.ledger.receipts import Signer
from comity.ledger.verification import verify
from comity.node.control_client import ControlClient
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.script import parse_script, session_text
from comity.protocols.gradient_rewards.messages import update_layout
from comity.session.codec import statement_to_proto
from comity.simulation.processes import NodeProcess, running
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from comity.wire.v1 import blobs_pb2, gathering_pb2, gradient_rewards_pb2_grpc
from tests.e2e.conftest import Site

CLIENTS = [f"client-{number}" for number in range(1, 6)]
QUICK = RetryPolicy(call_s=10.0, retry_s=0.2)


def small(seed: int, *, rounds: int, id: str | None = None, **terms: Any) -> str:
    """The demo's script with fewer rounds."""
    text = demo_script("gradient-rewards", seed).replace("rounds = 100", f"rounds = {rounds}")
    for name, value in terms.items():
        old = next(line for line in text.splitlines() if line.startswith(f"{name} = "))
        text = text.replace(old, f"{name} = {json.dumps(value)}", 1)
    return text if id is None else text.replace(f'id = "demo-{seed}"', f'id = "{id}"')


@dataclass
class Nodes:
    """A server's daemon and five clients'."""

    folder: Path
    nodes: dict[str, NodeProcess]

    def control(self, party: str) -> ControlClient:
        return ControlClient(self.nodes[party].control_url)

    def begin(self, script: str, clients: list[str] = CLIENTS) -> str:
        parsed = parse_script(script)
        with self.control("server") as control:
            session = control.open(session_text(parsed))
        for client in clients:
            with self.control(client) as control:
                control.join("server", session)
        return session

    def state(self, party: str, session: str) -> str:
        with self.control(party) as control:
            return str(control.details(session).summary.state)

    def rounds(self, session: str) -> int:
        with self.control("server") as control:
            return int(control.details(session).summary.rounds_finished)

    def identity(self, party: str) -> Identity:
        tls = self.nodes[party].folder / "tls"
        return Identity(party, tls / "certificate.pem", tls / "key.pem", tls / "trust.pem")

    def store(self, party: str) -> SqlStore:
        return SqlStore(store_url(self.nodes[party].folder / "state"), read_only=True)

    def address(self) -> str:
        with self.control("server") as control:
            return str(control.describe().address)

    @contextmanager
    def line(self, party: str, session: str, *, contract: str | None = None) -> Iterator[PeerConnection]:
        store = self.store("server")
        kept = store.find(session)
        store.close()
        known = stored_contract(kept)[0].hash if kept is not None else "0" * 64
        with PeerConnection(self.identity(party), "server", self.address(), QUICK) as connection:
            connection.enter(session, contract or known)
            yield connection


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    script = parse_script(small(1, rounds=4))
    with TemporaryDirectory(prefix="e2e-") as folder, running(script, Path(folder)) as started:
        yield Nodes(Path(folder), started)


def test_a_session_of_daemons_is_its_simulation(nodes: Nodes, comity: Any, typed: Any, tmp_path: Path) -> None:
    text = small(1, rounds=4)
    session = nodes.begin(text)
    result = comity.json("watch", session, "--node", nodes.nodes["server"].control_url, cwd=nodes.folder)
    (tmp_path / "s.toml").write_text(text)
    alone = typed.json("simulate", "s.toml", cwd=tmp_path)
    assert result["metrics"]["importance_by_round"] == alone["metrics"]["importance_by_round"]
    assert result["metrics"]["server_score"] == alone["metrics"]["server_score"]
    assert result["bytes_sent"] == alone["bytes_sent"]
    assert result["bytes_received"] == alone["bytes_received"]
    together, digests = [], []
    for client in CLIENTS:
        own = comity.json("watch", session, "--node", nodes.nodes[client].control_url, cwd=nodes.folder)
        together.append(own["metrics"]["own_score"])
        digests.append(bytes.fromhex(own["digest"]))
        # A client sees its own, and nothing of the others.
        assert own["metrics"]["importance_by_round"] == [
            each[CLIENTS.index(client)] for each in alone["metrics"]["importance_by_round"]
        ]
        assert not any(other in json.dumps(own) for other in CLIENTS if other != client)
    assert blake3(b"".join(digests)).hexdigest() == alone["digest"]
    assert together == alone["metrics"]["score_together"]
    assert_metrics(alone["metrics"], rounds=4)
    server = loaded(nodes.store("server").chains())
    verify(server)
    for place, client in enumerate(CLIENTS):
        theirs = loaded(nodes.store(client).chains())
        verify(theirs)
        assert compare(server, theirs) == []
        # What the server signed of its contribution and its reward stands in the client's ledger, and in the server's.
        state = nodes.nodes[client].folder / "state"
        stated = typed.json("ledger", "show", "--state", state, "--session", session, cwd=nodes.folder)["statements"]
        assert [each["content"]["importance"] for each in stated] == [
            each[place] for each in alone["metrics"]["importance_by_round"]
        ]
        assert {each["by"] for each in stated} == {"server"}
    state = nodes.nodes["server"].folder / "state"
    listed = comity("ledger", "show", "--state", state, "--session", session, cwd=nodes.folder).stdout.splitlines()
    head = next(number for number, line in enumerate(listed) if "stated by" in line)
    assert listed[head].split() == [
        "session",
        "units",
        "stated",
        "by",
        "to",
        *["contribution", "fraction", "importance", "kept", "size"],
    ]
    assert sum(line.split()[1:4:2] == ["round", "server"] for line in listed[head + 1 : head + 21]) == 20

    lines = comity("show", session, "--node", nodes.nodes["server"].control_url, cwd=nodes.folder).stdout.splitlines()
    (head,) = [number for number, line in enumerate(lines) if line == "rewards"]
    assert lines[head + 1].split()[:3] == ["round", "contribution", "importance"]
    assert [line.split()[:2] for line in lines[head + 2 : head + 22]] == [
        [str(round), client] for round in range(1, 5) for client in CLIENTS
    ]
    assert lines[head + 2].split()[-1] == str(result["metrics"]["bytes_by_round"][0][0])
    lines = comity("show", session, "--node", nodes.nodes[CLIENTS[1]].control_url, cwd=nodes.folder).stdout.splitlines()
    (head,) = [number for number, line in enumerate(lines) if line == "rewards"]
    assert [line.split()[0] for line in lines[head + 2 : head + 6]] == ["1", "2", "3", "4"]
    assert lines[head + 2].split()[-1] == str(result["metrics"]["bytes_by_round"][0][1])


def assert_metrics(metrics: dict[str, Any], *, rounds: int) -> None:
    for name in ("importance", "kept_fraction", "score_alone", "score_together"):
        assert len(metrics[name]) == len(CLIENTS)
    assert len(metrics["importance_by_round"]) == rounds
    assert all(math.isclose(sum(each), 1) for each in metrics["importance_by_round"])
    assert 0 <= metrics["server_score"] <= 1
    assert (metrics["fairness"] is None) == (metrics["spread"] < 0.01)


def waiting(nodes: Nodes, id: str, clients: list[str] = CLIENTS, **terms: Any) -> str:
    """A session that is not over before somebody ends it."""
    return nodes.begin(small(1, rounds=1000, id=id, **terms), clients)


def test_a_client_that_was_refused_joins_once_what_refused_it_has_changed(own_site: Site, comity: Any) -> None:
    server = own_site.start("server", "server", listen="127.0.0.2:0", data={"source": "digits"})
    with ControlClient(server.control_url) as control:
        address = str(control.describe().address)
        session = control.open(session_text(parse_script(small(1, rounds=4))))
    peers = {"server": {"address": address}}
    data: dict[str, Any] = {"source": "digits", "classes": [*"abcdefghij"]}
    for policy, code, said in (
        ({"max_rounds": 3}, 3, "max_rounds"),
        ({}, 3, 'class 0 is "a" at north'),
        ({}, 0, "is on"),
    ):
        # First its own policy refuses, then the server for what its data mean.
        node = own_site.start("client", "north", peers=peers, policy=policy, data=data, privacy={"preset": "public"})
        done = comity("join", "server", session, "--detach", "--node", node.control_url, cwd=own_site.folder)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        if policy == {} and code:
            del data["classes"]
        node.stop()
    node = own_site.start("client", "north", peers=peers, data=data, policy={"max_rounds": 3})
    # One that is on, or that has left something, is joined no second time under the same identifier.
    with ControlClient(node.control_url) as control:
        control.cancel(session)
        with pytest.raises(InvalidValue, match="ask server to open another session"):
            control.join("server", session)


def test_a_server_that_cancels_tells_every_client(nodes: Nodes, comity: Any, wait_until: Callable[..., None]) -> None:
    session = waiting(nodes, "unwanted")
    wait_until(lambda: nodes.rounds(session) > 1, "it is on", deadline_s=60)
    with comity.begun("watch", session, "--node", nodes.nodes["server"].control_url, cwd=nodes.folder) as (follower, _):
        assert comity.json("cancel", session, "--node", nodes.nodes["server"].control_url, cwd=nodes.folder)[
            "peer_told"
        ]
        follower.wait(30)
    for client in CLIENTS:
        line = comity.fails("watch", session, "--node", nodes.nodes[client].control_url, cwd=nodes.folder, code=1)
        assert "cancelled by the other party's operator" in line
        assert nodes.state(client, session) == "cancelled"
    assert nodes.state("server", session) == "cancelled"


def test_a_client_that_cancels_leaves_the_others_undisturbed(
    nodes: Nodes, comity: Any, wait_until: Callable[..., None]
) -> None:
    session = nodes.begin(small(1, rounds=30, id="one-leaves", min_clients=3))
    # Who leaves before the first round is not one of those for whom it begins.
    wait_until(lambda: nodes.rounds(session) > 0, "it is on", deadline_s=60)
    with nodes.control("client-2") as control:
        assert control.cancel(session)
    result = comity.json("watch", session, "--node", nodes.nodes["server"].control_url, cwd=nodes.folder)
    assert len(result["metrics"]["importance_by_round"]) == 30
    assert result["metrics"]["fraction_by_round"][-1][1] is None
    for client in CLIENTS:
        expected = "cancelled" if client == "client-2" else "finished"
        if expected == "finished":
            comity.json("watch", session, "--node", nodes.nodes[client].control_url, cwd=nodes.folder)
        assert nodes.state(client, session) == expected


def refused(call: Callable[[], object]) -> ComityError:
    with pytest.raises(ComityError) as caught:
        call()
    return caught.value


def test_clients_that_cheat_lose_their_call_only(nodes: Nodes, comity: Any, wait_until: Callable[..., None]) -> None:
    # Four are honest; the fifth's certificate is in the wrong hands, and joins by hand.
    session = nodes.begin(small(1, rounds=15, id="cheated"))
    others = nodes.begin(small(1, rounds=1, id="another"), CLIENTS[:2])
    mallory = "client-5"
    layout = update_layout(4810)
    values = torch.randn(4810, generator=torch.Generator().manual_seed(0))
    blob = layout.pack({"update": values * (0.25 / values.norm())})
    with nodes.line(mallory, session) as connection:
        stub = gradient_rewards_pb2_grpc.GradientRewardsStub(connection.channel)
        reference = blobs_pb2.BlobRef(digest=blob.digest)
        # Uploads of rounds that are not on.
        for round in (0, 999):
            assert isinstance(
                refused(lambda r=round: connection.put(blob, "update", in_round(r), before=lambda _: None)),
                UnexpectedBlob,
            )
            refused(lambda r=round: connection.call(stub.Submit, gathering_pb2.SubmitRequest(round=r, blob=reference)))
        # Another kind than the session has here.
        refused(lambda: connection.put(blob, "checkpoint", in_round(1), before=lambda _: None))
        # Signed by somebody else, for somebody else.
        forged = Signer.from_seed(bytes(32), "client-1").state(
            "request", session, "0" * 64, in_round(1), blob.hex, Head()
        )
        refused(
            lambda: connection.call(
                stub.Confirm, gathering_pb2.ConfirmRequest(round=1, request=statement_to_proto(forged))
            )
        )
        # What is another's cannot be had: neither an update nor a reward.
        store = nodes.store("server")
        found = [e.fact.subject for e in store.entries(session) if e.fact.peer != mallory and len(e.fact.subject) == 64]
        store.close()
        own = {e.fact.subject for e in nodes.store("server").entries(session) if e.fact.peer == mallory}
        for subject in [each for each in found if each not in own][:5]:
            assert isinstance(
                refused(lambda s=subject: connection.get(bytes.fromhex(s), 100, lambda _: None)), UnknownBlob
            )
    # Sessions in which it has no part, with the right contract and with another's.
    with nodes.line(mallory, others) as connection:
        stub = gradient_rewards_pb2_grpc.GradientRewardsStub(connection.channel)
        assert isinstance(
            refused(lambda: list(connection.watch(stub.WatchRounds, gathering_pb2.WatchRoundsRequest))), UnknownSession
        )
        assert isinstance(
            refused(lambda: connection.call(stub.Submit, gathering_pb2.SubmitRequest(round=1, blob=reference))),
            UnknownSession,
        )
    with nodes.line(mallory, session, contract="f" * 64) as connection:
        refused(
            lambda: connection.call(
                gradient_rewards_pb2_grpc.GradientRewardsStub(connection.channel).Submit,
                gathering_pb2.SubmitRequest(round=1),
            )
        )
    result = comity.json("watch", session, "--node", nodes.nodes["server"].control_url, cwd=nodes.folder)
    assert len(result["metrics"]["importance_by_round"]) == 15
    with nodes.control("server") as control:
        control.cancel(others)
