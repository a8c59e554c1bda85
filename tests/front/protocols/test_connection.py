"""Nodes that run, driven from Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from torch import nn

import comity
from comity.errors import InvalidValue, PolicyRefusal, SessionCancelled, UnknownKey, UnknownModel
from comity.front.scripts import script_of
from comity.simulation.processes import NodeProcess, running
from comity.tensors import Layout

PARTIES: dict[str, Any] = {
    "clinic": {"role": "learner", "secret": "c", "data": {"source": "digits", "per_class": 10}},
    "hospital": {
        "role": "provider",
        "secret": "h",
        "data": {"source": "digits", "per_class": 20},
        "policy": {"max_rounds": 1000},
    },
}
TERMS = {"iterations": 40, "sampling_period": 10, "batch_size": 32}
SESSION = {
    "protocol": "assisted_learning",
    "acceptors": ["hospital"],
    "rounds": 2,
    "id": "by-script",
    "model": {"name": "mlp", "options": {"hidden": 8}},
    "terms": TERMS,
}


@dataclass
class Pair:
    """Two nodes.

    Attributes:
        clinic: The connection to the one that asks.
        hospital: To the one that helps.
        processes: Their processes.
    """

    clinic: comity.Node
    hospital: comity.Node
    processes: dict[str, NodeProcess]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Pair]:
    script = script_of({"session": SESSION, "party": PARTIES})
    with TemporaryDirectory(prefix="front-") as folder, running(script, Path(folder)) as processes:
        socket = processes["clinic"].folder / "state" / "control.sock"
        with comity.connect(socket) as clinic, comity.connect(processes["hospital"].folder) as hospital:
            yield Pair(clinic, hospital, processes)


def test_a_session_over_the_network_is_the_simulated_one(nodes: Pair) -> None:
    expected = comity.simulate({"session": SESSION, "party": PARTIES, "simulation": {"threads": 1}})
    session = nodes.clinic.run({"session": SESSION})
    watched = list(session.watch())
    result = session.result(progress=False)
    assert str(session) == "by-script"
    assert session.state == "finished"
    assert result.digest == expected.digest
    assert [row["global_loss"] for row in watched] == list(expected.rounds["global_loss"])
    assert [row["round"] for row in result.rounds] == [1, 2]
    assert result.summary == expected.summary
    mine, theirs = (list(each.model.state_dict().values()) for each in (result, expected))
    assert all(bool((one == other).all()) for one, other in zip(mine, theirs, strict=True))
    kept = nodes.processes["clinic"].folder / "state" / "sessions" / "by-script" / "model.safetensors"
    copy = result.save(kept.parent.parent / "copy") / "model.safetensors"
    assert copy.read_bytes() == kept.read_bytes()
    with pytest.raises(InvalidValue, match="hospital helped in session by-script"):
        nodes.hospital.result(session)


def test_a_session_by_terms_and_who_knows_of_it(nodes: Pair) -> None:
    terms = comity.terms("assisted-learning", **TERMS)
    session = nodes.clinic.run(terms, acceptors=["hospital"], model="mlp", rounds=1, seed=3, id="by-terms")
    assert session.result().rounds[0]["round"] == 1
    for node in (nodes.clinic, nodes.hospital):
        (found,) = [each for each in node.sessions() if each.session == "by-terms"]
        assert (found.protocol, found.state, found.rounds_finished) == ("assisted_learning", "finished", 1)
    assert nodes.clinic.session("by-terms").state == "finished"
    assert nodes.hospital.address
    assert "clinic" in repr(nodes.clinic)


def test_a_session_that_is_cancelled(nodes: Pair) -> None:
    session = nodes.clinic.run({"session": SESSION | {"id": "cancelled", "rounds": 1000}})
    rounds = session.watch()
    assert next(rounds)["round"] == 1
    assert session.cancel()
    with pytest.raises(SessionCancelled):
        list(rounds)
    with pytest.raises(SessionCancelled):
        session.result()
    assert session.state == "cancelled"


def test_what_cannot_be_run(nodes: Pair, tmp_path: Path) -> None:
    terms = comity.terms("assisted_learning", **TERMS)
    factory: Any = nn.Linear
    with pytest.raises(InvalidValue, match=r"\[models\]"):
        nodes.clinic.run(terms, acceptors=["hospital"], model=factory)
    with pytest.raises(UnknownModel, match="did you mean"):
        nodes.clinic.run(terms, acceptors=["hospital"], model="mlpp")
    with pytest.raises(InvalidValue, match="acceptors"):
        nodes.clinic.run(terms, model="mlp")
    with pytest.raises(InvalidValue, match="describes parties"):
        nodes.clinic.run({"session": SESSION, "party": PARTIES})
    with pytest.raises(UnknownKey, match="did you mean rounds"):
        nodes.clinic.run({"session": SESSION | {"round": 3}})
    file = tmp_path / "session.toml"
    file.write_text(SCRIPT)
    with pytest.raises(PolicyRefusal, match="max_rounds"):
        nodes.clinic.run(file).result()


SCRIPT = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital"]
rounds = 1001
model = { name = "mlp" }
"""


def test_a_session_that_many_join(short_path: Path) -> None:
    clients = ["north", "south", "west"]
    partition = {"name": "uniform", "parties": 3, "seed": 0}
    data = {"source": "digits", "per_class": 30}
    parties: dict[str, Any] = {
        name: {"role": "client", "secret": name, "data": data | {"partition": partition | {"index": index}}}
        for index, name in enumerate(clients)
    }
    parties["center"] = {"role": "server", "data": {"source": "digits"}}
    terms = comity.terms("gradient_rewards", clients=3, epochs=1)
    session = {"protocol": "gradient_rewards", "acceptors": ["center"], "rounds": 2, "id": "many", "seed": 0}
    session |= {"model": {"name": "mlp", "options": {"hidden": 8}}, "terms": {"clients": 3, "epochs": 1}}
    expected = comity.simulate({"session": session, "party": parties, "simulation": {"threads": 1}})
    with running(script_of({"session": session, "party": parties}), short_path) as processes:
        nodes = {name: comity.connect(each.folder) for name, each in processes.items()}
        opened = nodes["center"].open(terms, model="mlp", options={"hidden": 8}, rounds=2, id="many")
        joined = {name: nodes[name].join("center", opened.id) for name in clients}
        results = {name: each.result() for name, each in joined.items()}
        of_server = opened.result()
        for node in nodes.values():
            node.close()
    assert {name: each.digest for name, each in results.items()} == {
        name: Layout.of(model.state_dict()).pack(model.state_dict()).hex for name, model in expected.models.items()
    }
    assert [(row["party"], row["fraction"]) for row in of_server.per_party] == [
        (row["party"], row["fraction"]) for row in expected.per_party
    ]
    assert of_server.model.state_dict().keys() == results["north"].model.state_dict().keys()
