"""Real daemons, killed with SIGKILL wherever a seed says, and started again, until the session is over.

The session must end in the digest of a simulation that nobody killed, with both ledgers whole and in agreement.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import combinations, cycle
from pathlib import Path

from blake3 import blake3

from comity.errors import ComityError, NodeProcessFailed, TransportError
from comity.experiments import demo_names, demo_script
from comity.experiments.studies import studies_of
from comity.faults import ENVIRONMENT, FaultPoint
from comity.ledger.charges import charges_of
from comity.ledger.comparison import compare
from comity.ledger.ledger import loaded
from comity.ledger.verification import verify
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script, parse_script, session_text
from comity.protocol.registry import protocol
from comity.randomness import derive
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess, prepare
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

_SESSION_S = 240.0
_POLL_S = 0.05


@dataclass
class Tally:
    """What a run of kills came to.

    Attributes:
        points: The points at which somebody is to be killed.
        kills: Kills by side and point.
        sessions: Sessions that were run.
        identical: Kills after which the session ended as if nobody had been killed.
        lost: Kills after which it did not.
        charged_twice: Charges of what was charged already.
    """

    points: tuple[FaultPoint, ...]
    kills: Counter[tuple[str, FaultPoint]] = field(default_factory=Counter)
    sessions: int = 0
    identical: int = 0
    lost: int = 0
    charged_twice: int = 0

    def lines(self) -> list[str]:
        """The tally as text, a line for each point and the sum at the end."""
        sides = sorted({side for side, _ in self.kills})
        rows = [
            f"{point:<11}" + "".join(f"{side} {self.kills[side, point]:<5}" for side in sides) for point in self.points
        ]
        return [*rows, f"{self.sessions} sessions", self.sum]

    @property
    def sum(self) -> str:
        """The tally in one line."""
        total = self.kills.total()
        return f"{total} kills, {self.identical} identical, {self.lost} lost, {self.charged_twice} charged twice"

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or charged twice, and no point went without a kill."""
        covered = {point for _, point in self.kills}
        return not self.lost and not self.charged_twice and covered == set(self.points)


def points_of(protocol: str, role: str) -> dict[str, int]:
    """The points at which a node of a role can be killed, with the highest number of each that is worth choosing."""
    return {"transfer": 12, "commit": 12, "receipt": 4, **studies_of(protocol).faults.get(role, {})}


Fate = tuple[FaultPoint, int]
"""A point, and how often it is passed until the one who passes it is killed."""


class Fates:
    """Where to kill a side, one time after the other: at each point in turn, the time that the seed says.

    Args:
        seed: Decides.
        side: Whom.
        points: See `points_of`.
    """

    def __init__(self, seed: int, side: str, points: Mapping[str, int]) -> None:
        self._fates = (
            (point, 1 + derive(seed, side, number) % most) for number, (point, most) in enumerate(cycle(points.items()))
        )
        self._missed: deque[Fate] = deque()

    def draw(self) -> Fate:
        """The next one."""
        return self._missed.popleft() if self._missed else next(self._fates)

    def missed(self, fate: Fate) -> None:
        """Has one that a session did not come to be tried again in the next, half as far.

        What comes early is passed once, before anybody was killed.
        """
        point, number = fate
        self._missed.append((point, max(number // 2, 1)))


def run(
    script: Script,
    kills: int,
    seed: int,
    *,
    sides: Sequence[str] = (),
    a_session: int = 8,
    report: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Runs sessions until so many kills were made.

    Args:
        script: The session; its parties are the sides.
        kills: Kills to make.
        seed: Decides whom to kill where.
        sides: Parties that are killed; all of them where left out.
        a_session: Kills in one session at the most.
        report: Told how it stands after every session.
    """
    expected, _ = simulate(script)
    points = {side: points_of(script.session.protocol, script.party[side].role) for side in sides or script.party}
    tally = Tally(tuple(dict.fromkeys(point for each in points.values() for point in each)))
    to_come = {side: Fates(seed, side, each) for side, each in points.items()}
    while tally.kills.total() < kills:
        before = tally.kills.total()
        with tempfile.TemporaryDirectory(prefix="comity-chaos-") as folder:
            budget = min(a_session, kills - before)
            digest = _session(script, Path(folder), to_come, tally, budget)
            twice = _charged_twice(script, Path(folder)) if digest == expected.digest else 0
        made = tally.kills.total() - before
        tally.sessions += 1
        tally.charged_twice += twice
        if digest == expected.digest:
            tally.identical += made
        else:
            tally.lost += made
        report(tally)
    return tally


def _session(script: Script, folder: Path, to_come: Mapping[str, Fates], tally: Tally, budget: int) -> str | None:
    """Runs a session, killing and restarting its nodes; returns its digest, None where it did not end."""
    armed: dict[str, Fate] = {}
    digest = _killing(script, folder, to_come, tally, budget, armed)
    for name, fate in armed.items():
        to_come[name].missed(fate)
    return digest


def _killing(
    script: Script,
    folder: Path,
    to_come: Mapping[str, Fates],
    tally: Tally,
    budget: int,
    armed: dict[str, Fate],
) -> str | None:
    """See `_session`; leaves in `armed` who is still to be killed."""
    nodes = prepare(script, folder)
    initiators = [name for name in nodes if name not in script.session.acceptors]
    results = [folder / name / "state" / "sessions" / f"{script.session.id}" / "result.json" for name in initiators]
    with ExitStack() as stack:
        for name, node in nodes.items():
            stack.callback(node.stop)
            if name in to_come:
                _start(node, to_come[name].draw(), armed)
            else:
                node.start()
        for node in nodes.values():
            node.wait_ready()
        beginning = stack.enter_context(ThreadPoolExecutor(1)).submit(_begin, script, nodes, initiators)
        killed = 0
        deadline = time.monotonic() + _SESSION_S
        while not all(result.exists() for result in results) and time.monotonic() < deadline:
            for name, node in nodes.items():
                code = node.exit_code()
                if code is None:
                    continue
                if code != -signal.SIGKILL or name not in armed:
                    raise NodeProcessFailed(f"node {name} ended by itself", received=node.last_words())
                tally.kills[name, armed.pop(name)[0]] += 1
                killed += 1
                # The last nodes live, so that the session ends.
                if killed + len(armed) < budget:
                    _start(node, to_come[name].draw(), armed)
                else:
                    node.start()
            if beginning.done():
                beginning.result()
            time.sleep(_POLL_S)
        return _digest(script, results)


def _digest(script: Script, results: Sequence[Path]) -> str | None:
    """What a session came to for all who asked; None where it did not end."""
    if not all(result.exists() for result in results):
        return None
    digests: list[str] = [json.loads(result.read_text())["digest"] for result in sorted(results)]
    many = protocol(script.session.protocol).topology.is_joined
    return blake3(b"".join(map(bytes.fromhex, digests))).hexdigest() if many else digests[0]


def _begin(script: Script, nodes: Mapping[str, NodeProcess], initiators: Sequence[str]) -> None:
    """Has the session asked for, or opened and joined; whoever is killed meanwhile is started again and asked again."""
    session, text = str(script.session.id), session_text(script)
    if not protocol(script.session.protocol).topology.is_joined:
        _enter(nodes[initiators[0]], session, lambda control: control.run(text))
        return
    (acceptor,) = script.session.acceptors
    _enter(nodes[acceptor], session, lambda control: control.open(text))
    for name in initiators:
        _enter(nodes[name], session, lambda control: control.join(acceptor, session))


def _enter(node: NodeProcess, session: str, ask: Callable[[ControlClient], object]) -> None:
    """Has a node enter a session; looks again where it was killed meanwhile, and asks again unless it had entered it."""
    deadline = time.monotonic() + _SESSION_S
    while time.monotonic() < deadline:
        with suppress(TransportError), ControlClient(node.control_url) as control:
            if session not in {each.session for each in control.sessions()}:
                ask(control)
            return
        time.sleep(_POLL_S)


def _start(node: NodeProcess, fate: Fate, armed: dict[str, Fate]) -> None:
    armed[node.party] = fate
    node.start({ENVIRONMENT: f"{fate[0]}:{fate[1]}"})


def _charged_twice(script: Script, folder: Path) -> int:
    """Checks both ledgers of an ended session; returns how many charges are of what was charged already.

    Raises:
        LedgerBroken: A chain does not hold, or the two disagree.
    """
    ledgers = {}
    for party in script.party:
        store = SqlStore(store_url(folder / party / "state"), read_only=True)
        try:
            chains = loaded(store.chains())
        finally:
            store.close()
        verify(chains)
        ledgers[party] = chains
    acceptors = script.session.acceptors
    lines = [(initiator, acceptor) for initiator in ledgers if initiator not in acceptors for acceptor in acceptors]
    for initiator, acceptor in lines:
        differences = compare(ledgers[initiator], ledgers[acceptor])
        if differences:
            raise NodeProcessFailed("the ledgers disagree", received=differences[0])
    return sum(
        one.overlaps(other)
        for chains in ledgers.values()
        for chain in chains
        for one, other in combinations([each.units for each in charges_of(chain.entries)], 2)
    )


def main() -> int:
    """`python -m comity.experiments.chaos --kills 200`."""
    parser = argparse.ArgumentParser(
        description="Kills real nodes until the number is reached, and checks what is left."
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=demo_names(), default="", type=lambda name: name.replace("_", "-"))
    options = parser.parse_args()
    script = parse_script(demo_script(options.protocol, options.seed))
    try:
        tally = run(script, options.kills, options.seed, report=lambda tally: print(tally.sum, file=sys.stderr))  # noqa: T201
    except ComityError as error:
        print(f"chaos: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("\n".join(tally.lines()))  # noqa: T201
    return 0 if tally.passed else 1


if __name__ == "__main__":
    sys.exit(main())
