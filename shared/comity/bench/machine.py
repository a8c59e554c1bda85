"""The machine that a figure belongs to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe() -> dict[str, str]:
    """Processor, cores that this process may use, load, and the versions that decide speed. Imports none of them."""
    return {
        "cpu": _processor(),
        "cores": str(_cores()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": platform.system(),
        "python": platform.python_version(),
        "grpc": version("grpcio"),
        "torch": version("torch"),
    }


def filesystem(folder: Path) -> str:
    """What a folder is on, such as `ext4 on /dev/vda`; empty where the system does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = [line.split()[:3] for line in lines]
    over = [(len(point), f"{kind} on {device}") for device, point, kind in mounts if _holds(point, folder)]
    # Of two on one place, the later one is seen.
    return max(reversed(over), key=lambda each: each[0], default=(0, ""))[1]


def _holds(mount: str, folder: Path) -> bool:
    return folder.resolve().is_relative_to(mount)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
