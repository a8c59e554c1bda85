"""A session that dies at any durable write or message, and goes on, ends as if nothing had happened."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path

import pytest

from comity import faults
from comity.experiments.chaos import points_of
from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import Script
from comity.simulation.in_process import simulate
from comity.training import Supervised
from tests.cases import Session, sessions_of, variants
from tests.ledgers import Charges, charged_once, kept

SOME = 11
"""Of so many points one is tried wherever all tests run; `make test-slow` tries them all."""
PARTS = 4
"""Test cases that share the points, so that they run beside each other."""


class Crash(BaseException):
    """Ends everything at once, like a SIGKILL."""


@pytest.mark.parametrize(("protocol", "session"), variants())
def test_session_killed_here_and_there_ends_as_if_it_had_not_been(
    protocol: str, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kill_at_points(sessions_of(protocol)[session], range(1, 10**6, SOME), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("protocol", "session"), variants())
def test_session_killed_anywhere_ends_as_if_it_had_not_been(
    protocol: str, session: str, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kill_at_points(sessions_of(protocol)[session], range(1 + part, 10**6, PARTS), tmp_path, monkeypatch)


def _kill_at_points(session: Session, points: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills a session at these of its points, each time anew."""
    # What dies is a process: what it wrote is there for the next, whether or not the disk has it yet.
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None, raising=False)
    script, steps = session.script, _counted_steps(monkeypatch)
    phases = Counter[str]()
    faults.install(lambda phase: phases.update([phase]))
    expected, _ = simulate(script, state=folder / "whole")
    roles = {party.role for party in script.party.values()}
    assert set(phases) >= {point for role in roles for point in points_of(script.session.protocol, role)}
    needed, charges = steps["made"], _charged(folder / "whole", script)
    for point in itertools.takewhile(lambda each: each <= phases.total(), points):
        state = folder / f"crash-{point}"
        steps["made"] = 0
        with pytest.raises(Crash):
            _simulate_until(script, state, point)
        result, _ = simulate(script, state=state)
        assert_same_end(result, expected)
        again = steps["made"] - needed
        assert again <= session.repeated, f"trained {again} iterations again after point {point}"
        assert _charged(state, script) == charges


def assert_same_end(result: SessionResult, expected: SessionResult) -> None:
    assert (result.digest, result.metrics) == (expected.digest, expected.metrics)
    assert (result.bytes_sent, result.bytes_received) == (expected.bytes_sent, expected.bytes_received)


def _charged(state: Path, script: Script) -> Charges:
    return charged_once(script, {party: kept(state / party) for party in script.party})


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
