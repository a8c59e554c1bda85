"""A session that dies at any durable write or message, and goes on, ends as if nothing had happened."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from comity import faults
from comity.experiments.chaos import points_of
from comity.ledger.charges import charges_of
from comity.ledger.comparison import compare
from comity.ledger.ledger import Chain, loaded
from comity.ledger.verification import verify
from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import Script, parse_script
from comity.protocol.registry import protocol
from comity.simulation.in_process import simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.training import Supervised
from tests.packages.scripts import SCRIPTS as PACKAGED

REPEATED = {"assisted_learning": 2, "guarded": 3, "several_providers": 2, "gradient_rewards": 3, "held_rows": 3}
"""Most iterations that are trained again: between two checkpoints; a round's of one client."""
SOME = 11
"""Of so many points one is tried wherever all tests run; `make test-slow` tries them all."""
PARTS = 4
"""Test cases that share the points, so that they run beside each other."""
SCRIPTS = {
    "assisted_learning": """
        [session]
        protocol = "assisted_learning"
        id = "crash"
        acceptors = ["provider"]
        rounds = 2
        seed = 3
        [session.model]
        name = "mlp"
        options = { hidden = 8 }
        [session.terms]
        learning_rate = 0.01
        batch_size = 16
        iterations = 12
        sampling_period = 2
        evaluation_batch_size = 16
        [party.learner]
        role = "learner"
        data = { source = "digits", per_class = 10, partition = { name = "imbalance", gamma = 0.6, share = "learner" } }
        [party.provider]
        role = "provider"
        data = { source = "digits", per_class = 10, partition = { name = "imbalance", gamma = 0.6, share = "provider" } }
    """,
    # Whoever goes on holds the same rows back: they decide the digest, and their share is among the metrics.
    "guarded": """
        [session]
        protocol = "assisted_learning"
        id = "crash"
        acceptors = ["provider"]
        rounds = 2
        seed = 3
        [session.model]
        name = "mlp"
        options = { hidden = 8 }
        [session.terms]
        optimizer = "sgd"
        learning_rate = 0.1
        batch_size = 24
        iterations = 20
        sampling_period = 3
        evaluation_batch_size = 64
        [party.learner]
        role = "learner"
        data = { source = "digits", per_class = 20, partition = { name = "uniform", parties = 2, index = 0 } }
        privacy = { preset = "guarded", min_distinct = 40 }
        [party.provider]
        role = "provider"
        data = { source = "digits", per_class = 20, partition = { name = "uniform", parties = 2, index = 1 } }
        privacy = { preset = "guarded", min_distinct = 40 }
    """,
    # In a round two train, one after the other, and the third says its losses.
    "several_providers": """
        [session]
        protocol = "assisted_learning"
        id = "crash"
        acceptors = ["hospital", "lab", "office"]
        rounds = 2
        seed = 3
        [session.model]
        name = "mlp"
        options = { hidden = 4 }
        [session.terms]
        learning_rate = 0.01
        batch_size = 16
        iterations = 6
        sampling_period = 2
        evaluation_batch_size = 64
        order = "rotating"
        trainers = 2
        [party.learner]
        role = "learner"
        data = { source = "digits", per_class = 8, partition = { name = "uniform", parties = 4, index = 0 } }
        [party.hospital]
        role = "provider"
        data = { source = "digits", per_class = 8, partition = { name = "uniform", parties = 4, index = 1 } }
        [party.lab]
        role = "provider"
        data = { source = "digits", per_class = 8, partition = { name = "uniform", parties = 4, index = 2 } }
        [party.office]
        role = "provider"
        data = { source = "digits", per_class = 8, partition = { name = "uniform", parties = 4, index = 3 } }
    """,
    "gradient_rewards": """
        [session]
        protocol = "gradient_rewards"
        id = "crash"
        acceptors = ["server"]
        rounds = 2
        seed = 3
        [session.model]
        name = "mlp"
        options = { hidden = 4 }
        [session.task]
        input_shape = [1, 8, 8]
        classes = 10
        [session.terms]
        clients = 3
        learning_rate = 0.1
        batch_size = 16
        epochs = 1
        [party.server]
        role = "server"
        [party.ann]
        role = "client"
        data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 0 } }
        [party.bob]
        role = "client"
        data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 1 } }
        [party.cleo]
        role = "client"
        data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 2 } }
    """,
    # What clients hold back of one update joins the next.
    "held_rows": """
        [session]
        protocol = "gradient_rewards"
        id = "crash"
        acceptors = ["server"]
        rounds = 2
        seed = 3
        [session.model]
        name = "mlp"
        options = { hidden = 6 }
        [session.task]
        input_shape = [1, 8, 8]
        classes = 10
        [session.terms]
        clients = 3
        learning_rate = 0.1
        batch_size = 16
        epochs = 1
        [party.server]
        role = "server"
        [party.ann]
        role = "client"
        privacy = { preset = "guarded", min_distinct = 8, width_factor = 0 }
        data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 0 } }
        [party.bob]
        role = "client"
        privacy = { preset = "guarded", min_distinct = 8, width_factor = 0 }
        data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 1 } }
        [party.cleo]
        role = "client"
        privacy = { preset = "guarded", min_distinct = 8, width_factor = 0 }
        data = { source = "digits", per_class = 12, partition = { name = "uniform", parties = 3, index = 2 } }
    """,
} | PACKAGED
"""Every protocol, and every shape of one, is tested by being listed."""


class Crash(BaseException):
    """Ends everything at once, like a SIGKILL."""


@pytest.mark.parametrize("protocol", SCRIPTS)
def test_session_killed_here_and_there_ends_as_if_it_had_not_been(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kill_at_points(parse_script(SCRIPTS[protocol]), protocol, 1, SOME, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("protocol", SCRIPTS)
def test_session_killed_anywhere_ends_as_if_it_had_not_been(
    protocol: str, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = parse_script(SCRIPTS[protocol])
    if protocol == "assisted_learning":
        # Both ways in which checkpoints cross, in turn.
        script.session.terms["trajectory_encoding"] = ("dense", "delta")[part % 2]
    _kill_at_points(script, protocol, 1 + part, PARTS, tmp_path, monkeypatch)


def _kill_at_points(
    script: Script, protocol: str, first: int, step: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _counted_steps(monkeypatch)
    phases = Counter[str]()
    faults.install(lambda phase: phases.update([phase]))
    expected, _ = simulate(script, state=folder / "whole")
    roles = {party.role for party in script.party.values()}
    assert set(phases) >= {point for role in roles for point in points_of(script.session.protocol, role)}
    needed = steps["made"]
    for point in range(first, phases.total() + 1, step):
        state = folder / f"crash-{point}"
        steps["made"] = 0
        with pytest.raises(Crash):
            _simulate_until(script, state, point)
        result, _ = simulate(script, state=state)
        assert_same_end(result, expected)
        assert steps["made"] <= needed + REPEATED.get(protocol, 0), (
            f"trained {steps['made'] - needed} iterations again after point {point}"
        )
        assert_ledgers_agree(state, script)


def assert_same_end(result: SessionResult, expected: SessionResult) -> None:
    assert (result.digest, result.metrics) == (expected.digest, expected.metrics)
    assert (result.bytes_sent, result.bytes_received) == (expected.bytes_sent, expected.bytes_received)


def assert_ledgers_agree(state: Path, script: Script) -> None:
    """All chains hold, each initiator's says the same as its acceptor's, and both charge all units of a round once."""
    ledgers = {party: _verified(state / party) for party in script.party}
    acceptors = script.session.acceptors
    for initiator, acceptor in itertools.product(script.party.keys() - set(acceptors), acceptors):
        for own, peer in ((initiator, acceptor), (acceptor, initiator)):
            (chain,) = (each for each in ledgers[own] if each.name == (script.session.id, peer))
            charged = [each.units for each in charges_of(chain.entries)]
            assert {each.unit for each in charged} == {protocol(script.session.protocol).unit}
            assert len(charged) == script.session.rounds
            size = charged[0].count
            assert [(each.first, each.count) for each in charged] == [(1 + n * size, size) for n in range(len(charged))]
        assert compare(ledgers[initiator], ledgers[acceptor]) == []


def _verified(folder: Path) -> list[Chain]:
    store = SqlStore(store_url(folder), read_only=True)
    chains = loaded(store.chains())
    store.close()
    verify(chains)
    return chains


def _simulate_until(script: Script, state: Path, point: int) -> None:
    passed = itertools.count(1)

    def hook(phase: faults.FaultPoint) -> None:
        if next(passed) == point:
            raise Crash(phase)

    faults.install(hook)
    try:
        simulate(script, state=state)
    finally:
        faults.install(None)


def _counted_steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    steps = {"made": 0}
    step = Supervised._step

    def counted(self: Supervised, *arguments: object) -> None:
        steps["made"] += 1
        step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Supervised, "_step", counted)
    return steps
