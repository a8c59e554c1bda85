"""How much memory a piece of work needs beyond what was there before it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """The growth of this process's resident memory, from its making to the highest point after it.

    Linux alone can tell: the kernel keeps the highest point and sets it back on request.
    """

    def __init__(self) -> None:
        _RESET.write_text(_RESET_PEAK)
        self._before = _read("VmRSS")

    def growth(self) -> int:
        """Bytes by which the highest point so far is above the beginning."""
        return max(_read("VmHWM") - self._before, 0)


def is_measurable() -> bool:
    """Whether this system keeps a peak that can be set back."""
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _read(field: str) -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"the kernel tells no {field}")
