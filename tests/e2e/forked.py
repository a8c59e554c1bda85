"""`comity` as processes of their own that need not import torch anew: each is forked from one that has.

A command that trains spends its first seconds of CPU on importing; a test of many commands spends them once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import clean_environment

_PARENT = """
import json, os, sys
import torch._dynamo, torchmetrics.functional
import comity.cli.main, comity.cli.offline, comity.cli.ledger, comity.cli.init, comity.cli.trust
import comity.protocol.registry, sklearn.datasets
for each in comity.protocol.registry.protocols():
    each.load()
for line in sys.stdin:
    wanted = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(wanted["cwd"])
            os.environ.update(wanted["environment"])
            output = os.open(wanted["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv = ["comity", *wanted["arguments"]]
            comity.cli.main.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass(frozen=True)
class Forked:
    """The command.

    Attributes:
        parent: Who forks.
        output: File that takes what a command prints.
    """

    parent: subprocess.Popen[str]
    output: Path

    def __call__(self, arguments: Sequence[str], cwd: Path, **environment: str) -> tuple[int, str]:
        """Runs it in a process of its own; its exit code, below 0 for a signal, and what it printed."""
        wanted = {"arguments": arguments, "cwd": str(cwd), "output": str(self.output), "environment": environment}
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.parent.stdin.write(json.dumps(wanted) + "\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline()), self.output.read_text()


@contextmanager
def forked(folder: Path) -> Iterator[Forked]:
    """The command, for as long as the body lasts."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(OMP_NUM_THREADS="1"),
    ) as parent:
        try:
            yield Forked(parent, folder / "output")
        finally:
            assert parent.stdin is not None
            parent.stdin.close()
            parent.wait(20)
