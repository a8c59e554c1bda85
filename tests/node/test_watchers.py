"""Those who are told what happens in sessions: one that fails hears no more, and no session hears of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from structlog.testing import capture_logs

from comity.contract import Contract
from comity.node.watchers import SessionWatcher, Watchers

DEADLINE_S = 10.0


class Failing(SessionWatcher):
    """Fails in two sessions at a time."""

    def __init__(self) -> None:
        self.both = threading.Barrier(2, timeout=DEADLINE_S)
        self.told = 0

    def entered(self, contract: Contract, party: str) -> None:
        self.told += 1
        self.both.wait()
        raise ValueError("no more")


def test_one_that_fails_in_two_sessions_at_a_time_stops_neither(make_contract: Any) -> None:
    watchers, failing, contract = Watchers(), Failing(), make_contract()
    with watchers.added(failing), ThreadPoolExecutor(2) as pool, capture_logs() as logs:
        for each in [pool.submit(watchers.entered, contract, "clinic") for _ in range(2)]:
            each.result(DEADLINE_S)
        watchers.entered(contract, "clinic")
    assert failing.told == 2
    assert {each["event"] for each in logs} == {"watcher-failed"}
