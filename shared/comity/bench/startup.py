"""How long the command takes to answer who only asks, against `import torch`, which it would take to import everything.

Each is a process of its own, as at a shell; they take turns, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved

_MOST_OF_TORCH = 0.4
_TORCH = "import torch"
_COMMANDS = (("--help",), ("run", "--help"), ("--version",))


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark.

    Args:
        quick: Once each, instead of eleven times.
    """
    machine = describe()
    ways: dict[str, Callable[[], float]] = {_TORCH: partial(_seconds, _TORCH)}
    for arguments in _COMMANDS:
        program = f"import sys; sys.argv = {['comity', *arguments]!r}; from comity.cli.main import main; main()"
        ways[f"comity {' '.join(arguments)}"] = partial(_seconds, program)
    medians = interleaved(ways, repeats=1 if quick else 11)
    baseline = Row(_TORCH, medians[_TORCH], "s")
    rows = [Row(name, medians[name], "s").over(baseline) for name in ways if name != _TORCH]
    what = f"comity --help, over {_TORCH}"
    return Report("startup", machine, [baseline, *rows], [Target.at_most(what, _MOST_OF_TORCH, rows[0].ratio or 0.0)])


def _seconds(program: str) -> float:
    """How long a new interpreter takes for a program."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - a program of ours
    return time.perf_counter() - began
