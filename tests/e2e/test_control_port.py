"""Driving nodes from another machine: the control port, operators' certificates, and several nodes at once."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from comity.errors import UnknownParty
from comity.node.control import SERVICE
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from comity.transport.identity import Identity
from comity.transport.status import from_rpc_error
from comity.wire.v1 import control_pb2 as pb
from comity.wire.v1 import control_pb2_grpc

SESSION = """\
[session]
protocol = "teacher_votes"
id = "{id}"
acceptors = ["hospital"]
rounds = 2

[session.models.student]
name = "mlp"
options = {{ hidden = 8 }}
"""
POLICY = 'egress = ["contract", "vote"]'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class World:
    """Two nodes with control ports, and who may drive them.

    Attributes:
        folder: With a folder for each party and operator.
        ports: Control ports by party.
        peers: Port that the hospital serves its peers on.
    """

    folder: Path
    ports: dict[str, int]
    peers: int

    def at(self, party: str) -> str:
        """What `--node` takes for a control port."""
        return f"{party}@127.0.0.1:{self.ports[party]}"


@pytest.fixture(scope="module")
def pair(site: Any, hand: Any, typed: Any) -> World:
    """A hospital and a clinic, made with `comity init`; alice drives both, bob neither."""
    home = site.folder
    world = World(home, {"hospital": free_port(), "clinic": free_port()}, free_port())
    listen = {party: ("--control", f"127.0.0.1:{port}") for party, port in world.ports.items()}

    def do(*arguments: object) -> None:
        done = typed(*arguments, cwd=home)
        assert done.returncode == 0, done.stderr

    for party in world.ports:
        # Where there is a secret, `comity init` keeps it; a simulation is given the same.
        (home / party / "state").mkdir(parents=True)
        (home / party / "state" / "secret").write_text(f"{party}-secret")
    at = f"127.0.0.1:{world.peers}"
    do("init", "teacher", "hospital", "--party", "hospital", "--listen", at, *listen["hospital"])
    do("init", "student", "clinic", "--party", "clinic", "--peer", f"hospital={at}", *listen["clinic"])
    for party in world.ports:
        config = home / party / "node.toml"
        config.write_text(config.read_text().replace("[policy]\n", f"[policy]\n{POLICY}\n"))
    for name in ("alice", "bob"):
        do("init", "operator", name, "--party", name)
    for party, other in (("hospital", "clinic"), ("clinic", "hospital")):
        do("trust", "add", other, f"{other}/{other}.pem", "--node", party)
        do("trust", "add", "alice", "alice/alice.pem", "--operator", "--node", party)
        for operator in ("alice", "bob"):
            do("trust", "add", party, f"{party}/{party}.pem", "--node", operator)
    for role, party in (("teacher", "hospital"), ("student", "clinic")):
        hand.ready(hand.start(["comity", "node", role], home / party))
    (home / "nodes.toml").write_text(nodes_toml(world))
    return world


def nodes_toml(world: World, operator: str = "alice", **places: str) -> str:
    """A file that names both nodes."""
    named = {party: f"127.0.0.1:{port}" for party, port in world.ports.items()} | places
    return f'operator = "{operator}"\n[nodes]\n' + "".join(f'{party} = "{at}"\n' for party, at in named.items())


def test_an_operator_drives_a_node_from_elsewhere(pair: World, comity: Any) -> None:
    assert comity.json("sessions", "--node", pair.at("clinic"), "--operator", "alice", cwd=pair.folder) == {
        "sessions": []
    }
    (pair.folder / "one.toml").write_text(SESSION.format(id="one"))
    remote = ("--node", pair.at("clinic"), "--operator", "alice")
    result = comity.json("run", "one.toml", *remote, cwd=pair.folder)
    assert (result["session"], result["rounds"]) == ("one", 2)
    here = comity.json("sessions", "--node", "clinic", cwd=pair.folder)
    # The same from the environment, and from the operator's own folder.
    variables = {"COMITY_NODE": pair.at("clinic"), "COMITY_OPERATOR": str(pair.folder / "alice")}
    assert comity.json("sessions", cwd=pair.folder, **variables) == here
    assert comity.json("sessions", "--node", pair.at("clinic"), cwd=pair.folder / "alice") == here


def test_a_stranger_does_not(pair: World, comity: Any) -> None:
    line = comity.fails("sessions", "--node", pair.at("clinic"), "--operator", "bob", cwd=pair.folder, code=1)
    assert "clinic does not accept our certificate" in line
    assert "comity trust add" in line
    assert "--operator" in line


def test_a_peer_is_no_operator(pair: World, comity: Any, tmp_path: Path) -> None:
    """The clinic, whom the hospital trusts as a peer, with its own key at the hospital's control port."""
    posing = tmp_path / "posing"
    (posing / "trust").mkdir(parents=True)
    for name in ("key.pem", "clinic.pem"):
        shutil.copy(pair.folder / "clinic" / name, posing)
    shutil.copy(pair.folder / "hospital" / "hospital.pem", posing / "trust")
    line = comity.fails("sessions", "--node", pair.at("hospital"), "--operator", posing, cwd=pair.folder, code=1)
    assert "hospital does not accept our certificate" in line


@pytest.mark.parametrize(("caller", "refused"), [("clinic", True), ("alice", False)])
def test_the_peers_port_takes_no_control(pair: World, caller: str, refused: bool) -> None:
    """Not of a peer, which gets through to the port, nor of an operator, whom the port does not know."""
    home = pair.folder / caller
    identity = Identity(caller, home / f"{caller}.pem", home / "key.pem", home / "trust")
    names = [("grpc.ssl_target_name_override", "hospital"), ("grpc.default_authority", "hospital")]
    credentials = identity.client_credentials("hospital")
    channel = grpc.secure_channel(f"127.0.0.1:{pair.peers}", credentials, names)
    with channel, pytest.raises(grpc.RpcError) as failed:
        control_pb2_grpc.ControlStub(channel).Describe(pb.DescribeRequest(), timeout=20)
    assert isinstance(failed.value, grpc.Call)
    code = failed.value.code()
    assert code is (grpc.StatusCode.UNIMPLEMENTED if refused else grpc.StatusCode.UNAVAILABLE), SERVICE
    assert not isinstance(from_rpc_error(failed.value), UnknownParty)


def test_several_nodes_run_a_session(pair: World, comity: Any) -> None:
    text = SESSION.format(id="everywhere")
    (pair.folder / "session.toml").write_text(text)
    done = comity.json("run", "session.toml", "--nodes", "nodes.toml", cwd=pair.folder)
    parties = "".join(
        f'[party.{party}]\nrole = "{role}"\nsecret = "{party}-secret"\ndata = {{ source = "digits" }}\n'
        f"policy = {{ {POLICY} }}\n"
        for party, role in (("clinic", "student"), ("hospital", "teacher"))
    )
    assert done["digest"] == simulate(parse_script(text + parties))[0].digest
    everywhere = comity.json("sessions", "--nodes", "nodes.toml", cwd=pair.folder)["nodes"]
    assert set(everywhere) == {"clinic", "hospital"}
    for sessions in everywhere.values():
        assert ("everywhere", "finished") in {(each["session"], each["state"]) for each in sessions}
    shown = comity("sessions", "--nodes", "nodes.toml", cwd=pair.folder).stdout
    assert shown.count("everywhere") == 2
    # Nodes of this machine go by their folders.
    (pair.folder / "folders.toml").write_text('[nodes]\nclinic = "clinic"\nhospital = "hospital"\n')
    assert comity.json("sessions", "--nodes", "folders.toml", cwd=pair.folder)["nodes"] == everywhere


@pytest.mark.parametrize(
    ("node", "operator", "code", "parts"),
    [
        ("clinic@127.0.0.1", "alice", 2, ("not an address", "host:port")),
        ("clinic@127.0.0.1:99999", "alice", 2, ("not an address",)),
        ("@127.0.0.1:1", "alice", 2, ("PARTY@HOST:PORT",)),
        ("clinic@", "alice", 2, ("not an address",)),
        ("unix:/nowhere/control.sock", "", 1, ("no node answers",)),
        ("clinic@127.0.0.1:1", "alice", 1, ("clinic cannot be reached", "127.0.0.1:1")),
        ("nobody@127.0.0.1:{clinic}", "alice", 2, ("nobody", "comity trust add")),
        ("hospital@127.0.0.1:{clinic}", "alice", 1, ("certificate",)),
        ("clinic@127.0.0.1:{clinic}", "nowhere", 2, ("no operator's folder", "comity init operator")),
        ("clinic@127.0.0.1:{clinic}", "clinic/key.pem", 2, ("no operator's folder",)),
        ("clinic@127.0.0.1:{clinic}", "", 2, ("no operator's folder",)),
        ("clinic/node.toml", "", 2, ("no node runs here",)),
    ],
)
def test_a_node_that_cannot_be_named_like_this(
    pair: World, typed: Any, node: str, operator: str, code: int, parts: tuple[str, ...]
) -> None:
    chosen = ["--operator", operator] if operator else []
    line = typed.fails("sessions", "--node", node.format(**pair.ports), *chosen, cwd=pair.folder, code=code)
    assert "received" in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("text", "code", "parts"),
    [
        ("[nodes", 2, ("is no TOML",)),
        ("", 2, ("nodes is missing",)),
        ("[nodes]\n", 2, ("names no node",)),
        ("[nodes]\nclinic = 5600\n", 2, ("nodes.clinic",)),
        ("[node]\nclinic = '127.0.0.1:1'\n", 2, ("unknown key node", "did you mean nodes?")),
        ("operator = 'alice'\n[nodes]\nclinic = 'nowhere'\n", 2, ("not an address", "nowhere")),
        ("operator = 'alice'\n[nodes]\nclinic = '127.0.0.1:1'\n", 1, ("clinic cannot be reached",)),
        ("operator = 'nobody'\n[nodes]\nclinic = '127.0.0.1:1'\n", 2, ("no operator's folder",)),
        ("[nodes]\nclinic = 'hospital'\n", 2, ("another party answers for clinic", "received hospital")),
        ("[nodes]\nclinic = 'alice'\n", 2, ("no node runs here",)),
        ("[nodes]\nclinic = 'clinic'\n", 2, ("not those of the session",)),
        ("[nodes]\nhospital = 'hospital'\n", 2, ("not those of the session",)),
    ],
)
def test_a_file_of_nodes_that_cannot_be_used(
    pair: World, typed: Any, text: str, code: int, parts: tuple[str, ...]
) -> None:
    (pair.folder / "session.toml").write_text(SESSION.format(id="never"))
    (pair.folder / "bad.toml").write_text(text)
    line = typed.fails("run", "session.toml", "--nodes", "bad.toml", cwd=pair.folder, code=code)
    for part in parts:
        assert part in line


def test_a_file_of_nodes_that_is_none(pair: World, comity: Any) -> None:
    assert "received nothing" in comity.fails("sessions", "--nodes", "no.toml", cwd=pair.folder, code=2)
    assert "received a folder" in comity.fails("sessions", "--nodes", "clinic", cwd=pair.folder, code=2)
    line = comity.fails("sessions", "--nodes", "nodes.toml", "--node", "clinic", cwd=pair.folder, code=2)
    assert "--nodes goes alone" in line
    # What the environment says gives way.
    assert comity.json("sessions", "--nodes", "nodes.toml", cwd=pair.folder, COMITY_NODE="clinic")["nodes"]
