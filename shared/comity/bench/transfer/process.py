"""The handle on the other process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from comity.errors import NodeProcessFailed

_STOP_S = 15.0


class Peer:
    """The other process, see `comity.bench.transfer.peer`.

    Args:
        model: Name of the model whose checkpoints are moved.
        directory: Its certificates.
    """

    def __init__(self, model: str, directory: Path) -> None:
        command = [sys.executable, "-m", "comity.bench.transfer.peer", model, str(directory)]
        self._process = subprocess.Popen(  # noqa: S603 - this package's own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        try:
            self.ports: dict[str, dict[str, int]] = self._answer()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        """Is running already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        # Both pipes are there: they were asked for.
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, command: str) -> dict[str, Any]:
        """Has one thing done there, and returns what there is to know of it.

        Raises:
            NodeProcessFailed: The process ended.
        """
        if self._process.stdin is not None:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise NodeProcessFailed("the benchmark's other process ended", action="see what it wrote to standard error")
        answer: dict[str, Any] = json.loads(line)
        return answer
