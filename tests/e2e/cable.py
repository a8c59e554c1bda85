"""Two machines on a long cable: network namespaces, each with a TUN device, and packets that this process carries between them.

What `tc netem` would do is done where the packets pass: they are lost, late, or too many for the line.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from comity.node.sessions.script import Script
from comity.simulation.forking import context
from comity.simulation.processes import NodeProcess, node_config
from comity.simulation.processes import _serve as serve
from comity.transport.certificates import Authority

NETWORK = "192.0.2"
"""Of the range that RFC 5737 keeps for this."""
_TUN = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_PACKET = 2**16
_LIBC = ctypes.CDLL(None, use_errno=True)


def refused() -> str:
    """Why this machine has no such cable; empty where it has."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "no iproute2"
    if not _TUN.exists():
        return f"no {_TUN}"
    trial = f"comity-{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", trial], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", trial], capture_output=True, check=False)
    return f"ip netns: {made.stderr.strip()}" if made.returncode else ""


class Cable:
    """Carries packets between two devices.

    Args:
        ends: What is read and written of either device.

    Attributes:
        is_plugged: Whether it carries anything.
        loss: Share of the packets that are lost.
        delay_s: How long a packet is on its way, in seconds.
        bytes_per_s: How many bytes pass in either direction a second.
        carried: Packets that were.
        lost: Packets that were not.
    """

    def __init__(self, ends: tuple[int, int]) -> None:
        self.is_plugged = True
        self.loss = 0.0
        self.delay_s = 0.0
        self.bytes_per_s = float("inf")
        self.carried = 0
        self.lost = 0
        self._ends = ends
        self._random = np.random.default_rng(0)
        self._stopped = threading.Event()
        self._free = dict.fromkeys(ends, 0.0)
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._thread = threading.Thread(target=self._carry, name="cable")
        self._thread.start()

    def be(self, *, loss: float = 0.0, delay_s: float = 0.0, bytes_per_s: float = float("inf")) -> None:
        """Takes another quality."""
        self.loss, self.delay_s, self.bytes_per_s = loss, delay_s, bytes_per_s

    def stop(self) -> None:
        """Carries nothing any more."""
        self._stopped.set()
        self._thread.join()

    def _carry(self) -> None:
        numbers = iter(range(2**62))
        while not self._stopped.is_set():
            now = time.monotonic()
            wait_s = max(0.0, self._on_the_way[0][0] - now) if self._on_the_way else 0.1
            for end in select.select(self._ends, [], [], min(wait_s, 0.1))[0]:
                packet = os.read(end, _PACKET)
                if not self.is_plugged or self._random.random() < self.loss:
                    self.lost += 1
                    continue
                # A packet begins when the one before it has passed.
                begins = max(time.monotonic(), self._free[end])
                self._free[end] = begins + len(packet) / self.bytes_per_s
                other = self._ends[1 - self._ends.index(end)]
                heapq.heappush(self._on_the_way, (self._free[end] + self.delay_s, next(numbers), other, packet))
            while self._on_the_way and self._on_the_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(self._on_the_way)
                if self.is_plugged:
                    os.write(end, packet)
                    self.carried += 1


class Machine(NodeProcess):
    """A daemon on one of the machines.

    Args:
        namespace: Which.
        role: See `NodeProcess`.
        folder: See there.
        config: See there.
    """

    def __init__(self, namespace: str, role: str, folder: Path, config: dict[str, Any]) -> None:
        super().__init__(role, folder, config)
        self._namespace = namespace

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """See `NodeProcess.start`."""
        variables = os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {})
        files = str(self.folder / "node.toml"), str(self.folder / "log")
        arguments = (self._namespace, self._role, *files, variables)
        self._process = context().Process(target=_serve_on, args=arguments, name=self.party, daemon=True)
        self._process.start()


def _serve_on(namespace: str, role: str, config: str, log: str, variables: Mapping[str, str]) -> None:
    with open(f"/run/netns/{namespace}") as file:  # noqa: PTH123 - a descriptor is all that is wanted of it
        if _LIBC.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    serve(role, config, log, variables)


@contextmanager
def joined(script: Script, folder: Path) -> Iterator[tuple[Cable, dict[str, NodeProcess]]]:
    """A session's parties, those that help on one machine and those that ask on the other; all of it goes at the end."""
    with ExitStack() as stack:
        mark = uuid.uuid4().hex[:8]
        namespaces = [stack.enter_context(_namespace(f"{side}-{mark}")) for side in ("helping", "asking")]
        ends = [stack.enter_context(_device(name, number)) for number, name in enumerate(namespaces, start=1)]
        cable = Cable((ends[0], ends[1]))
        stack.callback(cable.stop)
        authority = Authority.create()
        acceptors = script.session.acceptors
        addresses = {name: f"{NETWORK}.1:{5500 + number}" for number, name in enumerate(acceptors)}
        nodes: dict[str, NodeProcess] = {}
        for name in sorted(script.party, key=lambda each: each not in acceptors):
            helps = name in acceptors
            more: dict[str, object] = {"peers": {peer: {"address": address} for peer, address in addresses.items()}}
            if helps:
                more = {"listen": addresses[name]}
            section = script.party[name]
            config = node_config(name, section, authority.issue(name, folder / name / "tls"), **more)
            nodes[name] = Machine(namespaces[not helps], section.role, folder / name, config)
            stack.callback(nodes[name].stop)
            nodes[name].start()
        for node in nodes.values():
            node.wait_ready()
        yield cable, nodes


@contextmanager
def _namespace(name: str) -> Iterator[str]:
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _ip("netns", "del", name)


@contextmanager
def _device(namespace: str, number: int) -> Iterator[int]:
    """A TUN device of a namespace: what is written to it arrives there, and what is sent there is read from it."""
    name = f"tun{number}-{uuid.uuid4().hex[:6]}"
    end = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        _ip("link", "set", name, "netns", namespace)
        _ip("-n", namespace, "address", "add", f"{NETWORK}.{number}/24", "dev", name)
        _ip("-n", namespace, "link", "set", name, "up")
        yield end
    finally:
        os.close(end)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
