"""The stack of deploy/compose.yaml, as a user brings it up."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PLACES = {"learner": 1, "provider": 2, "server": 1, "client": 5}
"""How many places deploy/compose.yaml has for each role."""


_HEALTHY_S = 240.0
"""How long that may take, in seconds: also a node that was killed a moment ago comes back."""


def compose_command() -> list[str]:
    """Compose v2 where it is there, else docker-compose."""
    second = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if second.returncode == 0 else ["docker-compose"]


def named(role: str, number: int) -> str:
    """A place's name, as compose.yaml has it."""
    return role if PLACES[role] == 1 else f"{role}-{number}"


@dataclass
class Stack:
    """A simulation between containers.

    Attributes:
        folder: Where the script is.
        script: Its file's name.
        project: What Compose calls the stack.
        more: Variables for the compose file.
    """

    folder: Path
    script: str
    project: str = "comity-test"
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What the compose file is given."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
        given = {
            "COMITY_SCRIPTS": str(self.folder),
            "COMITY_SCRIPT": self.script,
            "COMPOSE_PROFILES": "providers,clients",
        }
        return kept | given | {"COMPOSE_PROJECT_NAME": self.project} | self.more

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs Compose to its end."""
        done = subprocess.run(
            [*compose_command(), *arguments],
            cwd=DEPLOY,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def operator(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command of the operator's."""
        return self.compose("run", "--rm", "-T", "operator", *arguments, check=check)

    def json(self, *arguments: str) -> dict[str, Any]:
        """What a command of the operator's prints as one object."""
        printed = self.operator(*arguments, "--json").stdout
        found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        return found

    def begin_session(self) -> subprocess.Popen[str]:
        """Starts the session; its rounds come as lines, its result last."""
        run = ["run", "/node/session.toml", "--nodes", "/node/nodes.toml", "--wait", "240", "--jsonl"]
        return subprocess.Popen(
            [*compose_command(), "run", "--rm", "-T", "operator", *run],
            cwd=DEPLOY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def container(self, service: str) -> str:
        """The identifier of a service's container."""
        return self.compose("ps", "--quiet", service).stdout.strip().splitlines()[-1]

    def inspect(self, service: str, template: str) -> str:
        """What Docker knows of a service's container."""
        return docker("inspect", "--format", template, self.container(service)).strip()

    def await_health(self, service: str) -> None:
        """Waits until Docker says that a service's container is healthy: it asks every half minute."""
        deadline, state = time.monotonic() + _HEALTHY_S, ""
        while state != "healthy":
            assert time.monotonic() < deadline, f"{service} is {state}: {self.compose('logs', service).stdout[-2000:]}"
            time.sleep(1)
            state = self.inspect(service, "{{.State.Health.Status}}")

    @property
    def wan(self) -> str:
        """The device of the network that all parties share."""
        return f"br-{docker('network', 'inspect', '--format', '{{.Id}}', f'{self.project}_wan').strip()[:12]}"

    @contextmanager
    def up(self, places: Sequence[str]) -> Iterator[None]:
        """Brings some places up, and everything down at the end."""
        try:
            self.compose("up", "--detach", "--no-build", *places)
            yield
        finally:
            self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20", check=False)

    @contextmanager
    def captured(self, file: Path) -> Iterator[None]:
        """Captures what crosses the network that all parties share."""
        tcpdump = shutil.which("tcpdump")
        assert tcpdump is not None, "tcpdump is needed: apt-get install tcpdump"
        process = subprocess.Popen(
            [tcpdump, "-i", self.wan, "-s", "0", "-U", "-Z", "root", "-B", "65536", "-w", str(file)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        first = process.stderr.readline()
        while "listening on" not in first and first:
            first = process.stderr.readline()
        assert first, "tcpdump did not begin: it wants root"
        try:
            yield
        finally:
            process.terminate()
            last = process.communicate(timeout=30)[1]
        dropped = re.search(r"(\d+) packets dropped by kernel", last)
        assert dropped is not None, last
        assert dropped[1] == "0", f"the capture has holes: {last}"


def docker(*arguments: str) -> str:
    """What a docker command prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {arguments}: {done.stderr}"
    return done.stdout
