"""A learner and two providers as daemons: one is killed, one refuses, and what operators see."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest
from rich.console import Console

from comity.cli.tables import per_round_table
from comity.errors import PolicyRefusal
from comity.faults import ENVIRONMENT
from comity.ledger.comparison import compare
from comity.ledger.ledger import loaded
from comity.node.control_client import ControlClient, raise_failure
from comity.node.sessions.script import Script, parse_script, session_text
from comity.protocol.registry import protocol
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess, running
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

SCRIPT = """
[session]
protocol = "assisted_learning"
id = "two"
acceptors = ["hospital", "lab"]
rounds = 3
seed = 3
model = { name = "mlp", options = { hidden = 8 } }
terms = { batch_size = 16, iterations = 40, sampling_period = 4, order = "rotating", evaluation_batch_size = 64 }

[party.clinic]
role = "learner"
secret = "clinic"
data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 0 } }

[party.hospital]
role = "provider"
secret = "hospital"
data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 1 } }

[party.lab]
role = "provider"
secret = "lab"
policy = { max_rounds = 3 }
data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 2 } }
"""


@dataclass(frozen=True)
class Trio:
    """The daemons, and what the session came to while the lab's was killed in it."""

    folder: Path
    nodes: dict[str, NodeProcess]
    events: list[Any]

    @property
    def result(self) -> dict[str, Any]:
        return dict(self.events[-1].fields["result"])

    def control(self, party: str) -> ControlClient:
        return ControlClient(self.nodes[party].control_url)


@pytest.fixture(scope="module")
def script() -> Script:
    return parse_script(SCRIPT)


@pytest.fixture(scope="module")
def trio(script: Script) -> Iterator[Trio]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="e2e-")))
        # In the third round, in its own training.
        nodes = stack.enter_context(running(script, folder, environments={"lab": {ENVIRONMENT: "training:14"}}))

        def revive() -> None:
            if nodes["lab"].exit_code(None) == -signal.SIGKILL:
                nodes["lab"].start()

        reviving = Thread(target=revive, daemon=True)
        reviving.start()
        with ControlClient(nodes["clinic"].control_url) as control:
            events = list(control.watch(control.run(session_text(script))))
        reviving.join()
        yield Trio(folder, nodes, events)


def test_a_session_survives_the_kill_of_a_provider_and_ends_as_its_simulation(trio: Trio, script: Script) -> None:
    assert any(each.kind == "waiting-over" and each.fields["subject"] == "lab" for each in trio.events)
    simulated, _ = simulate(script)
    assert trio.result["digest"] == simulated.digest
    ours, theirs = trio.result["metrics"], simulated.to_json()["metrics"]
    assert ours == theirs
    assert trio.result["ledger_verified"]
    crossed = {name: trio.result[name] for name in ("bytes_sent", "bytes_received")}
    assert crossed == {name: simulated.to_json()[name] for name in crossed}


def test_ledgers_agree_in_pairs(trio: Trio) -> None:
    ledgers = {}
    for party in trio.nodes:
        store = SqlStore(store_url(trio.folder / party / "state"), read_only=True)
        ledgers[party] = loaded(store.chains())
        store.close()
    for provider in ("hospital", "lab"):
        assert compare(ledgers["clinic"], ledgers[provider]) == []


def test_rounds_are_shown_with_every_providers_pick(trio: Trio) -> None:
    started = next(each for each in trio.events if each.kind == "session-started")
    titles = {each["field"]: each["title"] for each in started.fields["columns"]}
    assert titles["pick_hospital"] == "hospital's pick"
    rounds = [each for each in trio.events if each.kind == "round-finished"]
    assert [each.fields["pick_lab"] for each in rounds] == [row[1] for row in trio.result["metrics"]["pick_by_round"]]


def test_the_statement_says_what_each_providers_help_changed(trio: Trio) -> None:
    table = protocol("assisted_learning").presentation.per_round
    assert table is not None
    console = Console(width=200)
    with console.capture() as shown:
        console.print(per_round_table(table, trio.result["metrics"]))
    rows = [line.split() for line in shown.get().splitlines()]
    for name in ("hospital", "lab"):
        assert [row[0] for row in rows if row[1:2] == [name]] == ["1", "2", "3", "all"]


def test_the_others_are_told_when_one_cancels(trio: Trio, script: Script) -> None:
    terms = script.session.terms | {"iterations": 20_000, "sampling_period": 20}
    slow = script.session.model_copy(update={"id": "slow", "terms": terms})
    with trio.control("clinic") as control, trio.control("lab") as lab:
        control.run(session_text(script.model_copy(update={"session": slow})))
        watched = control.watch("slow")
        assert next(each for each in watched if each.kind == "checkpoint-offered")
        lab.cancel("slow")
        assert next(each for each in watched if each.kind == "session-cancelled")
    with trio.control("hospital") as control:
        assert {each.session: each.state for each in control.sessions()}["slow"] == "cancelled"


def test_whoever_agreed_is_told_when_another_refuses(trio: Trio, script: Script) -> None:
    longer = script.model_copy(update={"session": script.session.model_copy(update={"id": "long", "rounds": 4})})
    with trio.control("clinic") as control:
        control.run(session_text(longer))
        failed = next(each for each in control.watch("long") if each.kind == "session-failed")
    with pytest.raises(PolicyRefusal, match="lab's policy.max_rounds"):
        raise_failure(failed)
    with trio.control("hospital") as control:
        states = {each.session: each.state for each in control.sessions()}
    assert (states["two"], states["long"]) == ("finished", "failed")
