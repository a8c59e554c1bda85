"""A session over a network that breaks, stalls, is slow or is away ends as one that nothing disturbed, whatever the protocol."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType
from typing import Any

import pytest

from comity import faults
from comity.errors import PeerUnreachable
from comity.ledger.ledger import Units
from comity.simulation.in_process import simulate
from comity.store.store import Waiting
from comity.transport import retry as times
from tests.cases import PROTOCOLS, Session, plain, sessions_of, variants
from tests.e2e.conftest import until
from tests.e2e.network import DEADLINE_S, Network, charges_in, network
from tests.proxy import cut_after, stalled_after_headers

SAME = ("digest", "metrics", "bytes_sent", "bytes_received", "ledger_verified")


@dataclass(frozen=True)
class Ending:
    """What a session came to.

    Attributes:
        result: What its operators saw.
        charges: What was charged.
    """

    result: dict[str, Any]
    charges: dict[tuple[str, str], tuple[Units, ...]]


@dataclass(frozen=True)
class Whole:
    """A session that nothing disturbed.

    Attributes:
        ending: What it came to.
        asked: Bytes that went up each line.
        answered: Bytes that came down.
        points: How often its nodes passed each point at which they may die.
    """

    ending: Ending
    asked: dict[tuple[str, str], int]
    answered: dict[tuple[str, str], int]
    points: dict[str, int]


@pytest.fixture(autouse=True)
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes hooks off, and has nodes notice sooner that nobody is there: what is tested is what they do then."""
    monkeypatch.setattr(times, "KEEPALIVE_S", 1.0)
    monkeypatch.setattr(times, "SILENCE_S", 2.0)
    yield
    faults.install(None)


def session(case: Session, harm: Callable[[Network], object] = lambda found: None) -> Ending:
    """Runs a session over a network, after some harm was prepared."""
    script = case.script
    with TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        with network(script, folder) as found:
            harm(found)
            result = found.run()
        faults.install(None)
        return Ending({each: result[each] for each in SAME}, dict(charges_in(script, folder)))


@cache
def whole(case: Session) -> Whole:
    """A session that nothing disturbed; it comes to what a simulation comes to."""
    points, lock = Counter[str](), threading.Lock()
    networks: list[Network] = []

    def passed(point: str) -> None:
        with lock:
            points[point] += 1

    def begin(found: Network) -> None:
        networks.append(found)
        faults.install(passed)

    ending = session(case, begin)
    simulated = simulate(case.script)[0].to_json()
    assert ending.result == {each: simulated[each] for each in SAME}
    lines = networks[0].lines.items()
    asked, answered = ({line: sum(getattr(proxy, way)) for line, proxy in lines} for way in ("asked", "answered"))
    return Whole(ending, asked, answered, dict(points))


def at(point: str, time: int, harm: Callable[[], object]) -> None:
    """Does harm when a node passes a point, once it was passed so often."""
    passed, lock = Counter[str](), threading.Lock()

    def hook(phase: str) -> None:
        with lock:
            passed[phase] += 1
            if phase != point or passed[phase] != time:
                return
        harm()

    faults.install(hook)


# --- What may happen to a line -------------------------------------------------------------------------------------------


def sending(found: Network, of: Whole) -> None:
    """Every line breaks in the middle of what initiators send."""
    for line, proxy in found.lines.items():
        proxy.fault = cut_after(of.asked[line] // 2, upstream=True)


def receiving(found: Network, of: Whole) -> None:
    """Every line breaks in the middle of what comes back."""
    for line, proxy in found.lines.items():
        proxy.fault = cut_after(of.answered[line] // 2, upstream=False)


def again_and_again(found: Network, of: Whole) -> None:
    """Whenever a third of all that there is to send has passed, the line breaks; four times in all."""
    for line, proxy in found.lines.items():
        proxy.fault = cut_after(of.asked[line] // 3, upstream=True, times=4)


def silent(found: Network, of: Whole) -> None:
    """Every line falls silent halfway: it stays open, and nothing passes; a new one works."""

    def hush() -> None:
        for each in found.proxies:
            each.hush()

    at("commit", (of.points["commit"] + 1) // 2, hush)


def headers_alone(found: Network, of: Whole) -> None:
    """Of an answer the headers come, and then nothing."""
    del of
    for each in found.proxies:
        each.fault = stalled_after_headers(3)


HARMS = {each.__name__: each for each in (sending, receiving, again_and_again, silent, headers_alone)}


BOTH_WAYS = ("sending", "receiving")
CASES = [
    (protocol, name, harm)
    for protocol, name in variants()
    for harm in HARMS
    # What a variant has of its own is what crosses.
    if harm in BOTH_WAYS or name == "plain"
]


@pytest.mark.parametrize(("protocol", "name", "harm"), CASES)
def test_a_session_goes_on_over_a_line_that_fails(protocol: str, name: str, harm: str) -> None:
    case = sessions_of(protocol)[name]
    of = whole(case)
    networks: list[Network] = []

    def begin(found: Network) -> None:
        networks.append(found)
        HARMS[harm](found, of)

    assert session(case, begin) == of.ending
    assert all(each.harmed.is_set() for each in networks[0].proxies)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_session_goes_on_where_its_lines_break_while_somebody_works(protocol: str) -> None:
    """Whoever trains, chooses or keeps something finds its line broken, and whoever waits for it, too."""
    case = plain(protocol)
    of = whole(case)
    for point, passed in of.points.items():
        cuts: list[str] = []

        def begin(found: Network, point: str = point, passed: int = passed, cuts: list[str] = cuts) -> None:
            def cut() -> None:
                cuts.append(point)
                for each in found.proxies:
                    each.cut()

            at(point, (passed + 1) // 2, cut)

        assert session(case, begin) == of.ending, point
        assert cuts == [point]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_session_goes_on_over_a_slow_line(protocol: str) -> None:
    case = plain(protocol)

    def begin(found: Network) -> None:
        for each in found.proxies:
            each.delay_s, each.bytes_per_s = 0.003, 500_000.0

    assert session(case, begin) == whole(case).ending


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_session_waits_for_a_network_that_is_away_and_says_so(protocol: str) -> None:
    case = plain(protocol)
    script, of, gone = case.script, whole(case), threading.Event()
    initiator = next(each for each in script.party if each not in script.session.acceptors)
    with TemporaryDirectory(prefix="e2e-") as name, ThreadPoolExecutor(1) as pool:
        folder = Path(name)
        with network(script, folder) as found:

            def away() -> None:
                for each in found.proxies:
                    each.is_away = True
                    each.cut()
                gone.set()

            at("commit", (of.points["commit"] + 1) // 2, away)
            running = pool.submit(found.run)
            assert gone.wait(DEADLINE_S)
            operator = found.clients[initiator]

            def waits() -> list[Waiting]:
                return [wait for each in operator.sessions() for wait in each.waits if wait.reason == "peer-away"]

            until(waits, "the initiator waits for its peers")
            (seen,) = operator.sessions()
            assert seen.state == "waiting"
            told = next(each for each in operator.watch(seen.session) if each.fields.get("reason") == "peer-away")
            assert told.fields["subject"] in script.session.acceptors
            assert told.fields["waits_for"] == f"{told.fields['subject']}, which does not answer"
            for each in found.proxies:
                each.is_away = False
            result = running.result(DEADLINE_S)
            assert [each.state for each in operator.sessions()] == ["finished"]
        ending = Ending({each: result[each] for each in SAME}, dict(charges_in(script, folder)))
    assert ending == of.ending


@pytest.mark.parametrize("protocol", ["federated_count", "vote_pool"])
def test_a_session_that_stopped_goes_on_by_itself(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is away for longer than a node waits: the session stops, says why, and is tried again."""
    monkeypatch.setattr("comity.node.daemon._LOOK_S", 0.1)
    case = plain(protocol)
    script, of, gone = case.script, whole(case), threading.Event()
    initiators = [each for each in script.party if each not in script.session.acceptors]
    with TemporaryDirectory(prefix="e2e-") as name, ThreadPoolExecutor(1) as pool:
        folder = Path(name)
        with network(script, folder, retry={"call_s": 3.0, "retry_s": 0.2, "again_s": 0.5}) as found:

            def away() -> None:
                for each in found.proxies:
                    each.is_away = True
                    each.cut()
                gone.set()

            def states() -> set[str]:
                return {each.state for name in initiators for each in found.clients[name].sessions()}

            at("commit", (of.points["commit"] + 1) // 2, away)
            running = pool.submit(found.run)
            assert gone.wait(DEADLINE_S)
            until(lambda: "stopped" in states(), "a session stops")
            for each in found.proxies:
                each.is_away = False
            until(lambda: states() == {"finished"}, "it goes on by itself", deadline_s=DEADLINE_S)
            # Who followed it was told why it stopped, unless another of many did.
            assert isinstance(running.exception(DEADLINE_S), (PeerUnreachable, NoneType))
        assert charges_in(script, folder) == of.ending.charges
