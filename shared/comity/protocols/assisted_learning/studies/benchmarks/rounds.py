"""The same rounds over the network between two daemons, and in one process, in memory and on disk as daemons have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from comity.node.control_client import ControlClient, raise_failure
from comity.node.sessions.script import ModelSection, Script, parse_script, session_text
from comity.protocols.assisted_learning.algorithm import sampled_iterations, split_iterations
from comity.session.events import Event
from comity.simulation.in_process import simulate

_SCRIPT = """\
[session]
protocol = "assisted_learning"
acceptors = ["provider"]
rounds = 1
model = { name = "mlp" }

[party.learner]
role = "learner"

[party.learner.data]
source = "digits"
per_class = 20
partition = { name = "uniform", parties = 2, index = 0 }

[party.provider]
role = "provider"

[party.provider.data]
source = "digits"
per_class = 20
partition = { name = "uniform", parties = 2, index = 1 }
"""
_SAMPLES = 100
"""Of each party: half of twenty for each digit."""


@dataclass(frozen=True)
class Load:
    """A kind of round.

    Attributes:
        iterations: T + T', half of them at each party.
        period: The sampling period I.
        rounds: Rounds in a session.
        hidden: Width of the model's two hidden layers.
    """

    iterations: int
    period: int
    rounds: int
    hidden: int

    @property
    def crossing(self) -> int:
        """Checkpoints whose tensors cross in a round: each party's first is there already."""
        split = split_iterations(self.iterations, _SAMPLES, _SAMPLES)
        return sum(len(sampled_iterations(iterations, self.period)) - 1 for iterations in split)

    def script(self, session: str) -> Script:
        """The script of a session of such rounds."""
        script = parse_script(_SCRIPT)
        script.session.id = session
        script.session.rounds = self.rounds
        script.session.model = ModelSection(name="mlp", options={"hidden": self.hidden, "hidden_layers": 2})
        script.session.terms = {"iterations": self.iterations, "sampling_period": self.period, "batch_size": _SAMPLES}
        return script


@dataclass(frozen=True, slots=True)
class Seconds:
    """Median seconds of a round.

    Attributes:
        memory: In one process, in memory.
        disk: In one process, on disk.
        network: Over the network; daemons keep everything on disk.
    """

    memory: float
    disk: float
    network: float


class Ways:
    """Runs sessions in all three ways.

    Args:
        control: The learner's node.
        folder: Where sessions in one process keep what they keep.
    """

    def __init__(self, control: ControlClient, folder: Path) -> None:
        self._control = control
        self._folder = folder
        self._sessions = 0

    def compare(self, loads: Mapping[str, Load], *, repeats: int) -> dict[str, Seconds]:
        """Runs sessions of each load in all ways, in turn, again and again; the first of each does not count."""
        measured: dict[str, tuple[list[float], ...]] = {name: ([], [], []) for name in loads}
        for repeat in range(1 + repeats):
            for name, load in loads.items():
                self._sessions += 1
                script = load.script(f"bench-{self._sessions}")
                state = self._folder / f"bench-{self._sessions}"
                ways = self._in_process(script, None), self._in_process(script, state), self._over_network(script)
                if repeat:
                    for seconds, found in zip(measured[name], ways, strict=True):
                        seconds.extend(found)
        return {name: Seconds(*map(median, ways)) for name, ways in measured.items()}

    @staticmethod
    def _in_process(script: Script, state: Path | None) -> list[float]:
        rounds = _Rounds()
        simulate(script, rounds.observe, state=state)
        return rounds.seconds

    def _over_network(self, script: Script) -> list[float]:
        rounds = _Rounds()
        for event in self._control.watch(self._control.run(session_text(script))):
            rounds.observe(event)
        return rounds.seconds


class _Rounds:
    """Notes how long each round of a session took, as its learner says."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        if event.kind == "session-failed":
            raise_failure(event)
        if event.kind == "round-finished":
            self.seconds.append(float(str(event.fields["seconds"])))
