"""Nothing of a client's sample crosses to the server of gradient rewards, nor anything of another client's to a client."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from safetensors.torch import load as load_safetensors

from comity.node.control_client import ControlClient
from tests.e2e.wiretap import MEAN, STD, TYPES, Recording, make_samples, undo
from tests.proxy import proxying

CLIENTS = {"ann": make_samples(1, 24, as_floats=False), "bob": make_samples(2, 40, as_floats=True)}
NEEDLES = {name: list(samples.needles()) for name, samples in CLIENTS.items()}
ROUNDS = 3
SCRIPT = f"""\
[session]
protocol = "gradient_rewards"
id = "watched"
acceptors = ["server"]
rounds = {ROUNDS}
[session.model]
name = "mlp"
options = {{ hidden = 12 }}
[session.task]
input_shape = [1, 8, 8]
classes = 4
[session.normalization]
mean = [{MEAN}]
std = [{STD}]
[session.terms]
clients = 2
min_clients = 2
epochs = 1
batch_size = 16
learning_rate = 0.1
"""


@pytest.fixture(scope="module")
def recordings(site: Any) -> dict[str, Recording]:
    """What crossed between each client and the server in a whole session."""
    vault = site.folder / "vault-of-the-sentinel"
    vault.mkdir()
    for name, samples in CLIENTS.items():
        samples.save(vault / f"{name}.npz")
    # So few samples hide none of them: nothing would be left to send.
    shared = {"secure": False, "policy": {"min_clients": 2}, "privacy": {"preset": "public"}}
    server = site.start("server", "server", listen="127.0.0.1:0", secret="the-server's", **shared)
    with ExitStack() as stack:
        relays = {name: stack.enter_context(proxying(server.wait_ready())) for name in CLIENTS}
        nodes = {"server": server}
        for name, relay in relays.items():
            data, peers = {"source": f"npz:{vault / name}.npz"}, {"server": {"address": relay.address}}
            secret = f"the-secret-of-{name}"
            nodes[name] = site.start("client", name, data=data, peers=peers, secret=secret, **shared)
        control = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        session = control["server"].open(SCRIPT)
        for name in CLIENTS:
            control[name].join("server", session)
        for each in control.values():
            *_, last = each.watch(session)
            assert last.kind == "session-finished", last
        for node in reversed(nodes.values()):
            node.stop()
    return {name: undo(relay.connections) for name, relay in relays.items()}


@pytest.mark.parametrize("client", CLIENTS)
def test_all_that_crossed_was_seen(recordings: dict[str, Recording], client: str) -> None:
    """An update and a reward in every round, and nothing but messages that are known."""
    recording = recordings[client]
    methods = [call.method for call in recording.calls]
    assert len(recording.blobs("asked")) == len(recording.blobs("answered")) == ROUNDS
    assert {each.split("/")[0] for each in methods} <= {"Sessions", "Blobs", "GradientRewards"}
    assert set(methods) <= set(TYPES)
    updates = [each for each in recording.blobs() if each[8:9] == b"{"]
    assert [set(load_safetensors(each)) for each in updates] == [{"update"}] * ROUNDS


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("whose", CLIENTS)
def test_no_sample_crosses(recordings: dict[str, Recording], client: str, whose: str) -> None:
    assert recordings[client].find(NEEDLES[whose]) == []


def test_a_client_sees_nothing_of_the_other(recordings: dict[str, Recording]) -> None:
    """Neither its name nor its update."""
    for client, other in (("ann", "bob"), ("bob", "ann")):
        updates = [each[-256:] for each in recordings[other].blobs() if each[8:9] == b"{"]
        assert recordings[client].find([("its name", other.encode()), *(("an update", each) for each in updates)]) == []
        assert recordings[other].find([("an update", each) for each in updates]) == ["an update"] * ROUNDS
        private = [("a secret", f"the-secret-of-{client}".encode()), ("a place", b"vault-of-the-sentinel")]
        assert recordings[client].find(private) == []
