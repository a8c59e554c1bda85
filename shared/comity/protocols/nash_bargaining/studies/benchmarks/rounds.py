"""A bargaining round between daemons: beside a bare exchange of the same bytes, and with eight providers beside one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from comity.bench.machine import describe, filesystem
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import one_thread
from comity.node.control_client import ControlClient, raise_failure
from comity.node.sessions.script import Script, parse_script, session_text
from comity.protocols.nash_bargaining.studies.benchmarks.bare import exchange
from comity.protocols.nash_bargaining.studies.benchmarks.computing import Computed
from comity.protocols.nash_bargaining.studies.benchmarks.waiting import WAIT
from comity.simulation.processes import running

_PROVIDERS, _MANY = 3, 8
_WAIT_S = 0.2
_MOST_OVER_BARE, _MOST_OVER_ONE = 3.0, 1.3
_PARAMETERS = 64 * 40 + 40 + 40 * 40 + 40 + 40 * 10 + 10
"""Of the demo's model."""
_NET = "python:comity.protocols.nash_bargaining.studies.benchmarks.waiting:waiting_mlp"
_SESSION = """\
[session]
protocol = "nash_bargaining"
id = "{name}"
acceptors = [{providers}]
rounds = {rounds}
seed = 0

[session.model]
name = "net"
options = {{ hidden = 40, hidden_layers = 2 }}

[session.terms]
batch_size = 8
power_every = 1

[simulation]
threads = 1
"""
_PARTY = """
[party.{name}]
role = "{role}"
secret = "{name}"
models = {{ net = "{net}" }}
privacy = {{ preset = "public" }}

[party.{name}.data]
source = "digits"
per_class = 20
partition = {{ name = "uniform", parties = 9, index = {index} }}
"""


def script(name: str, providers: int, rounds: int) -> Script:
    """A session of the demo's size whose gradients are of eight samples, so that they take next to nothing."""
    names = [f"provider{number}" for number in range(1, providers + 1)]
    text = _SESSION.format(name=name, providers=", ".join(f'"{each}"' for each in names), rounds=rounds)
    for index, (party, role) in enumerate([("learner", "learner"), *((each, "provider") for each in names)]):
        text += _PARTY.format(name=party, role=role, index=index, net=_NET)
    return parse_script(text)


def run(*, quick: bool = False) -> Report:
    """Measures rounds.

    What a learner computes in a round, its two gradients, the game, the step and the test, is measured by itself, by the same
    functions in one process, and taken off the round: the providers' gradients are made meanwhile, and are not.

    Args:
        quick: A few, of two providers at most.
    """
    rounds, repeats = (4, 1) if quick else (40, 5)
    few, many = (1, 2) if quick else (_PROVIDERS, _MANY)
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as name, one_thread():
        folder = Path(name)
        disk = filesystem(folder)
        round_s, computed_s, bare_s = _beside_bare(folder, few, rounds, repeats)
        waits = _waits(folder, many, max(rounds // 4, 3), repeats)
    sizes = f"{few} providers, {4 * _PARAMETERS / 1000:.0f} kB each way"
    bare = Row(f"bare mTLS exchange, {sizes}, one commit at each end ({disk})", 1e3 * bare_s, "ms")
    whole = Row(f"a bargaining round between daemons, {sizes}", 1e3 * round_s, "ms").over(bare)
    computed = Row("what its learner computes: two gradients, game, step, test", 1e3 * computed_s, "ms").over(bare)
    beside = Row("the round beside that", 1e3 * (round_s - computed_s), "ms").over(bare)
    one = Row(f"a round with one provider whose gradient takes {1e3 * _WAIT_S:.0f} ms more", 1e3 * waits[1], "ms")
    all_of_them = Row(f"a round with {many} of them", 1e3 * waits[many], "ms").over(one)
    targets = [
        Target.at_most("a round beside its gradients, over a bare exchange", _MOST_OVER_BARE, beside.ratio or 0.0),
        Target.at_most(f"a round with {many} providers that wait, over one", _MOST_OVER_ONE, all_of_them.ratio or 0.0),
    ]
    return Report("rounds", describe(), [bare, whole, computed, beside, one, all_of_them], targets)


def _beside_bare(folder: Path, providers: int, rounds: int, repeats: int) -> tuple[float, float, float]:
    """Median seconds of a round over the network, of what its learner computes in it, and of a bare exchange; in turn."""
    found: tuple[list[float], list[float], list[float]] = ([], [], [])
    computed = Computed(script("computed", providers, rounds))
    size = 4 * _PARAMETERS
    (folder / "bare").mkdir()
    with (
        _sessions(folder / "few", providers, {}) as session,
        exchange(providers, (size, size), folder / "bare") as bare,
    ):
        session("warm", rounds)
        for repeat in range(repeats):
            found[0].extend(session(f"round-{repeat}", rounds))
            found[1].extend(computed.once() for _ in range(rounds))
            found[2].extend(bare.once() for _ in range(rounds))
    return median(found[0]), median(found[1]), median(found[2])


def _waits(folder: Path, many: int, rounds: int, repeats: int) -> dict[int, float]:
    """Seconds of a round with one provider that waits, and with many."""
    wait = {f"provider{number}": {WAIT: str(_WAIT_S)} for number in range(1, many + 1)}
    found: dict[int, list[float]] = {1: [], many: []}
    with _sessions(folder / "many", many, wait) as session:
        for repeat in range(1 + repeats):
            for providers, seconds in found.items():
                came = session(f"wait-{providers}-{repeat}", rounds, providers)
                seconds.extend(came if repeat else [])
    return {providers: median(seconds) for providers, seconds in found.items()}


@contextmanager
def _sessions(
    folder: Path, providers: int, environments: dict[str, dict[str, str]]
) -> Iterator[Callable[..., list[float]]]:
    """Daemons, and what runs a session of them and returns the seconds of its rounds."""
    with (
        running(script("nodes", providers, 1), folder, environments=environments) as nodes,
        ControlClient(nodes["learner"].control_url) as control,
    ):

        def session(name: str, rounds: int, of: int = providers) -> list[float]:
            seen = _Rounds()
            for event in control.watch(control.run(session_text(script(name, of, rounds)))):
                if event.kind == "session-failed":
                    raise_failure(event)
                seen.observe(event)
            return seen.seconds()

        yield session


class _Rounds:
    """Notes when each round of a session ended."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def observe(self, event: object) -> None:
        """See `Observer`."""
        if getattr(event, "kind", "") == "round-finished":
            self._ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """From one round's end to the next's."""
        return [after - before for before, after in zip(self._ends, self._ends[1:], strict=False)]
