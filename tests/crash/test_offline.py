"""A session whose rounds are exchanged offline, in which every command dies again and again, ends as if nothing had happened."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from comity import faults
from comity.ledger.charges import charges_of
from comity.simulation.in_process import simulate
from tests.node.offline_pair import ROLES, ROUNDS, Journey, script, whole_script

Result = TypeVar("Result")


class Crash(BaseException):
    """Ends everything at once, like a SIGKILL."""


def persistently(command: Callable[[], Result], crashes: list[str]) -> Result:
    """Has a command die early, go on, die a little later, and so on, until it gets through."""
    for point in itertools.accumulate(itertools.cycle([1, 2])):
        passed = itertools.count(1)

        def hook(phase: faults.FaultPoint, passed: itertools.count[int] = passed, point: int = point) -> None:
            if next(passed) == point:
                crashes.append(phase)
                raise Crash(phase)

        faults.install(hook)
        try:
            return command()
        except Crash:
            continue
        finally:
            faults.install(None)
    raise AssertionError("it never gets through")


def test_every_command_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    expected, _ = simulate(whole_script())
    journey = Journey.prepared(tmp_path)
    crashes: list[str] = []
    with journey.desk("clinic") as desk:
        persistently(lambda: desk.begin(script()), crashes)
    results = []
    for sender, receiver in [("clinic", "hospital"), ("hospital", "clinic")] * (ROUNDS + 1) + [("clinic", "hospital")]:
        file = persistently(lambda sender=sender: journey.export(sender), crashes).file  # type: ignore[misc]
        results.append(persistently(lambda receiver=receiver, file=file: journey.take(receiver, file), crashes).result)  # type: ignore[misc]
    assert set(crashes) == {"training", "offering", "transfer", "evaluation", "selection", "commit", "receipt"}
    (result,) = [each for each in results if each is not None]
    assert (result.digest, result.metrics) == (expected.digest, expected.metrics)
    assert (result.bytes_sent, result.bytes_received) == (expected.bytes_sent, expected.bytes_received)
    journey.require_agreement()
    for party in ROLES:
        assert len(charges_of(journey.entries(party))) == ROUNDS
