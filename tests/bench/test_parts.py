"""What the benchmarks are built from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comity.bench import Report, Row, Target
from comity.bench.machine import filesystem
from comity.bench.memory import PeakMemory, is_measurable
from comity.bench.sampling import interleaved, one_thread


def test_a_row_is_compared_with_its_baseline() -> None:
    row = Row("this", 30.0, "ms").over(Row("that", 20.0, "ms"))
    assert row == Row("this", 30.0, "ms", 1.5, "that")


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target.at_least("speed", 0.35, 0.35), True),
        (Target.at_least("speed", 0.35, 0.34), False),
        (Target.at_most("memory", 1.5, 1.5), True),
        (Target.at_most("memory", 1.5, 1.6), False),
    ],
)
def test_targets_hold_at_their_bound(target: Target, met: bool) -> None:
    assert target.met is met


def test_a_report_reads_as_text_and_as_json() -> None:
    base = Row("that", 20.0, "ms")
    report = Report("some", {"cpu": "x"}, [base, Row("this", 30.0, "ms").over(base)], [Target.at_most("it", 1, 1.5)])
    assert report.lines() == [
        "some on cpu x",
        "  that          20 ms",
        "  this          30 ms       1.500 of that",
        "  target missed: it <= 1, got 1.5",
    ]
    assert report.to_json() == {
        "name": "some",
        "machine": {"cpu": "x"},
        "rows": [
            {"label": "that", "median": 20.0, "unit": "ms", "ratio": None, "baseline": ""},
            {"label": "this", "median": 30.0, "unit": "ms", "ratio": 1.5, "baseline": "that"},
        ],
        "targets": [{"what": "it", "required": "<= 1", "got": 1.5, "met": False}],
    }


def test_cases_take_turns_and_the_first_of_each_does_not_count() -> None:
    order: list[str] = []
    values = {"a": iter([100.0, 1.0, 2.0, 9.0]), "b": iter([100.0, 5.0, 3.0, 4.0])}

    def measure(name: str) -> float:
        order.append(name)
        return next(values[name])

    assert interleaved({"a": lambda: measure("a"), "b": lambda: measure("b")}, repeats=3) == {"a": 2.0, "b": 4.0}
    assert "".join(order) == "ab" * 4


@pytest.mark.skipif(not is_measurable(), reason="this system keeps no peak that can be set back")
def test_peak_memory_counts_what_was_given_back() -> None:
    size = 64 * 2**20
    memory = PeakMemory()
    buffer = bytearray(size)
    del buffer
    first = memory.growth()
    assert size * 0.9 < first < size * 1.5
    assert PeakMemory().growth() < size * 0.5


def test_threads_are_set_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="this system does not tell")
def test_a_folder_is_on_the_file_system_mounted_nearest() -> None:
    assert filesystem(Path("/proc/self")).startswith("proc on ")
    assert filesystem(Path("/"))
