"""Each benchmark in its quick mode: that it measures what it names. How fast a machine under test is says nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from comity.bench import BENCHMARKS, Report, run
from comity.bench.memory import is_measurable
from comity.errors import InvalidValue

MACHINE = {"cpu", "cores", "load", "system", "python", "grpc", "torch"}


def quick(name: str, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.delenv("COMITY_DATA", raising=False)
    report = run(name, quick=True)
    assert_sound(report, name)
    return report


def assert_sound(report: Report, name: str) -> None:
    assert report.name == name
    assert set(report.machine) == MACHINE
    assert all(report.machine.values())
    labels = [row.label for row in report.rows]
    assert len(set(labels)) == len(labels)
    assert report.targets
    for row in report.rows:
        assert math.isfinite(row.median)
        assert (row.ratio is None) == (row.baseline == "")
        assert row.baseline in {"", *labels}
        if row.ratio is not None:
            baseline = report.rows[labels.index(row.baseline)]
            assert row.unit == baseline.unit
            assert row.ratio == pytest.approx(row.median / baseline.median)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["name"] == name
    text = "\n".join(report.lines())
    assert all(label in text for label in labels)


def test_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("transfer", monkeypatch)
    labels = {row.label for row in report.rows}
    for security, raw in (("plaintext", "raw TCP"), ("mTLS", "raw TLS")):
        for direction in ("upload", "download"):
            assert {f"{raw}, {direction}", f"{security}, comity, {direction}"} <= labels
        assert {f"{security}, whole message, {format}, upload" for format in ("safetensors", "torch.save")} <= labels
    assert {target.required for target in report.targets} >= {">= 0.35", ">= 0.4"}
    assert len(report.targets) == (6 if is_measurable() else 4)


def test_screening(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("screening", monkeypatch)
    assert all(target.met for target in report.targets)
    passes = {row.label: row for row in report.rows if row.unit == "passes"}
    for receiver in ("learner", "provider"):
        # Two rounds, in each of which both parties receive a trajectory.
        row = passes[f"digits, {receiver}, screening, the same trajectories"]
        assert row.baseline == f"digits, {receiver}, full evaluation, 2 trajectories"
        assert row.ratio is not None
        assert 0 < row.ratio <= 1


def test_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("overhead", monkeypatch)
    medians = {row.label: row.median for row in report.rows}
    for size in (4, 16):
        assert medians[f"round of {size} checkpoints, in one process"] > 0
        assert medians[f"round of {size} checkpoints, over the network"] > 0
    assert {"the network's cost of a round", "the network's cost of a checkpoint that crosses"} <= set(medians)
    assert [target.required for target in report.targets] == ["<= 1.1"]


def test_a_wrong_name_is_answered_with_the_near_one() -> None:
    with pytest.raises(InvalidValue, match="received transfr; did you mean transfer"):
        run("transfr")


def test_every_benchmark_is_tested_here() -> None:
    assert {f"test_{name}" for name in BENCHMARKS} <= set(globals())


def test_naming_the_benchmarks_needs_no_torch() -> None:
    code = "import sys, comity.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cifar_is_measured_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from comity.bench import screening  # noqa: PLC0415

    measured = []

    def note(name: str, scripts: list[object]) -> dict[str, screening.Comparison]:
        measured.append((name, len(scripts)))
        return {}

    monkeypatch.setattr(screening, "_measure", note)
    monkeypatch.setenv("COMITY_DATA", str(tmp_path))
    screening.run()
    (tmp_path / "cifar10").mkdir()
    screening.run()
    assert measured == [("digits", 5), ("digits", 5), ("cifar10", 1)]
