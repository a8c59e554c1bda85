"""The process in which a contract is tried: reads what to try, answers with the error as JSON, `{}` for none.

It bounds itself before any model's code runs: its memory to what the party has for models, so that an allocation fails
here, and its time. Where memory is short all the same, the system ends it first.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from comity.errors import ComityError
from comity.node.config import PartyConfig
from comity.node.logs import configure_logs
from comity.node.party import LocalParty
from comity.node.sessions.kept import contract_of
from comity.node.sessions.room import memory_quota, require_memory
from comity.session.policy import NOTHING_RESERVED
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets

_DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def main() -> None:
    """Tries what standard input says."""
    # What a model prints is no answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    # From the start: it reads the data beside the node, which already has them.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    asked = json.load(sys.stdin)
    configure_logs()
    told: dict[str, Any] = {}
    try:
        _try(asked)
    except ComityError as error:
        told = {
            "kind": type(error).__name__,
            "what": error.what,
            "expected": error.expected,
            "received": error.received,
            "action": error.action,
        }
    os.write(answer, json.dumps(told).encode())
    # Whatever a model left running ends here.
    os._exit(0)


def _try(asked: dict[str, Any]) -> None:
    config = PartyConfig.model_validate(asked["config"])
    folder = None if asked["folder"] is None else Path(asked["folder"])
    party = LocalParty(asked["party"], config, GivenSecrets(b"trial"), MemoryStore(), folder)
    contract, _ = contract_of(asked["contract"])
    # Read without bounds, as the node itself has read them.
    _ = party.holdings.data
    _bound(memory_quota(config.policy), config.limits.trial_s)
    require_memory(party, contract, NOTHING_RESERVED)
    party.tried_task(party.signed(contract))


def _bound(memory: int, seconds: float) -> None:
    """Bounds this process, from now on, to so much more memory and time."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    taken = _kilobytes("/proc/self/status", "VmData:")
    free = _kilobytes("/proc/meminfo", "MemAvailable:")
    limit = 1024 * taken + min(memory, 1024 * free)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _kilobytes(file: str, name: str) -> int:
    lines = Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
