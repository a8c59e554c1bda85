"""What keeping everything on disk costs a session: the same one with ledger, journal and blobs synced, and in memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from comity.bench.machine import describe, filesystem
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.errors import InvalidValue
from comity.node.sessions.script import Script
from comity.simulation.in_process import simulate

_MOST_OVER_MEMORY = 1.05

_REPEATS = 9
_SYNC_BYTES = 2**18
"""About a small model's tensors."""


def measure(make: Callable[[Path], Script], *, quick: bool) -> Report:
    """Runs a session on disk and in memory, in turn, again and again.

    Args:
        make: Makes the session's script, with its data in a folder.
        quick: Once.
    """
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as name, one_thread():
        folder = Path(name)
        disk = filesystem(folder)
        if disk.startswith(("tmpfs", "ramfs")) and not quick:
            raise InvalidValue(
                "the temporary folder is no disk", expected="a disk", received=disk, action="set TMPDIR to one"
            )
        script = make(folder)
        rounds = script.session.rounds
        sessions = _Sessions(script, folder)
        ways = {"memory": sessions.in_memory, "disk": sessions.on_disk}
        seconds = interleaved(ways, repeats=1 if quick else _REPEATS)
        sync = interleaved({"sync": lambda: _sync(folder / "sync")}, repeats=11)["sync"]
    if len(sessions.digests) != 1:
        raise AssertionError("a session on disk ended with another model than in memory")
    where = f"on disk ({disk})" if disk else "on disk"
    memory = Row(f"session of {rounds} rounds, in memory", seconds["memory"], "s")
    kept = Row(f"session of {rounds} rounds, {where}", seconds["disk"], "s").over(memory)
    rows = [
        memory,
        kept,
        Row("what the disk costs a round", 1e3 * (seconds["disk"] - seconds["memory"]) / rounds, "ms"),
        Row(f"writing and syncing {_SYNC_BYTES // 2**10} KiB once", 1e3 * sync, "ms"),
    ]
    target = Target.at_most("a session on disk, over the same in memory", _MOST_OVER_MEMORY, kept.ratio or 0.0)
    return Report("durability", machine, rows, [target])


class _Sessions:
    """Runs one session again and again.

    Args:
        script: The session.
        folder: Where those that keep something keep it, each in a folder of its own.

    Attributes:
        digests: What the sessions ended with.
    """

    def __init__(self, script: Script, folder: Path) -> None:
        self._script = script
        self._folder = folder
        self._number = count()
        self.digests: set[str] = set()

    def in_memory(self) -> float:
        """Seconds of a session that ends with its process."""
        return self._measure(None)

    def on_disk(self) -> float:
        """Seconds of a session that survives its process at any moment."""
        return self._measure(self._folder / f"session-{next(self._number)}")

    def _measure(self, state: Path | None) -> float:
        began = time.perf_counter()
        result, _ = simulate(self._script, state=state)
        seconds = time.perf_counter() - began
        self.digests.add(result.digest)
        return seconds


def _sync(path: Path) -> float:
    content = bytes(_SYNC_BYTES)
    began = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - began
