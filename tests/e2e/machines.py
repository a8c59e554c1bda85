"""Two machines: network namespaces joined by a cable where this machine allows them, else two loopback addresses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HOSTNAME = "hospital.example.org"
SIDES = ("hospital", "clinic")
_NETNS_FILES = Path("/etc/netns")


class Machines(ABC):
    """Two machines, each with an operator's folder.

    Attributes:
        what: What they are, for whoever reads a test's output.
        folders: Where each side's operator works.
    """

    what: str

    def __init__(self, folder: Path) -> None:
        self.folders = {side: folder / side for side in SIDES}
        for each in self.folders.values():
            each.mkdir()

    @abstractmethod
    def command(self, side: str, line: str) -> list[str]:
        """What has a line typed at a side's shell."""

    @abstractmethod
    def switch(self, side: str, line: str, nodes: dict[str, Any]) -> None:
        """Takes a side's network down or up, as its administrator does with a line of `ip`.

        Args:
            side: Whose.
            line: `ip link set eth0 down`, or `up`.
            nodes: The daemons that run, by side.
        """


class Namespaces(Machines):
    """Network namespaces of their own, joined by a veth pair, with names in `hosts` files of their own."""

    what = "two network namespaces joined by a veth pair"

    def __init__(self, folder: Path, names: dict[str, str]) -> None:
        super().__init__(folder)
        self._names = names

    def command(self, side: str, line: str) -> list[str]:
        """Runs it in the side's namespace."""
        return ["ip", "netns", "exec", self._names[side], "sh", "-c", line]

    def switch(self, side: str, line: str, nodes: dict[str, Any]) -> None:
        """Runs it in the side's namespace."""
        del nodes
        subprocess.run(self.command(side, line), check=True)


class Loopback(Machines):
    """Two addresses of loopback; an unplugged cable is a hospital whose process stands still."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(folder)
        self.what = f"two loopback addresses, for want of network namespaces ({reason})"

    def command(self, side: str, line: str) -> list[str]:
        """Runs it here, with the hospital at an address of its own."""
        listen = "COMITY_NODE_LISTEN=127.0.0.2:5500 " if side == "hospital" and "comity node" in line else ""
        return ["sh", "-c", listen + line.replace(HOSTNAME, "127.0.0.2")]

    def switch(self, side: str, line: str, nodes: dict[str, Any]) -> None:
        """Stops the hospital's process, or lets it go on: to the clinic, packets vanish."""
        del side
        nodes["hospital"].send_signal(signal.SIGSTOP if line.endswith("down") else signal.SIGCONT)


@contextmanager
def two_machines(folder: Path) -> Iterator[Machines]:
    """Two machines for as long as the body lasts; nothing of them stays."""
    with ExitStack() as stack:
        reason = _refused()
        if reason:
            yield Loopback(folder, reason)
            return
        yield Namespaces(folder, _joined(stack))


def _refused() -> str:
    """Why this machine gives no namespaces; empty where it does."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "no iproute2"
    trial = f"comity-{uuid.uuid4().hex[:8]}"
    made = _ip("netns", "add", trial)
    if made.returncode:
        return f"ip netns: {made.stderr.strip()}"
    joined = _ip("link", "add", "eth0", "netns", trial, "type", "veth", "peer", "name", "eth1", "netns", trial)
    _ip("netns", "del", trial)
    return f"ip link: {joined.stderr.strip()}" if joined.returncode else ""


def _joined(stack: ExitStack) -> dict[str, str]:
    """Makes a namespace for each side, and lays the cable; addresses are of the range that RFC 5737 keeps for this."""
    mark = uuid.uuid4().hex[:8]
    names = {side: f"{side}-{mark}" for side in SIDES}
    for name in names.values():
        files = _NETNS_FILES / name
        stack.callback(_remove, files)
        files.mkdir(parents=True)
        (files / "hosts").write_text(f"127.0.0.1 localhost\n192.0.2.1 {HOSTNAME}\n")
        stack.callback(_ip, "netns", "del", name)
        _must("netns", "add", name)
        _must("-n", name, "link", "set", "lo", "up")
    ends: Sequence[str] = [names[side] for side in SIDES]
    _must("link", "add", "eth0", "netns", ends[0], "type", "veth", "peer", "name", "eth0", "netns", ends[1])
    for number, name in enumerate(ends, start=1):
        _must("-n", name, "address", "add", f"192.0.2.{number}/24", "dev", "eth0")
        _must("-n", name, "link", "set", "eth0", "up")
    return names


def _remove(files: Path) -> None:
    shutil.rmtree(files, ignore_errors=True)
    if _NETNS_FILES.is_dir() and not any(_NETNS_FILES.iterdir()):
        _NETNS_FILES.rmdir()


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def _must(*arguments: str) -> None:
    done = _ip(*arguments)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
