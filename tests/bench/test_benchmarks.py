"""Each benchmark in its quick mode: that it measures what it names. How fast a machine under test is says nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from comity.bench import Report, known, run
from comity.bench.memory import is_measurable
from comity.errors import InvalidValue

pytestmark = pytest.mark.slow

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
            # A median of ratios, where each was measured beside its baseline, is only about the ratio of medians.
            assert row.ratio == pytest.approx(row.median / baseline.median, rel=0.1)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["name"] == name
    text = "\n".join(report.lines())
    assert all(label in text for label in labels)


def test_data(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("data", monkeypatch)
    assert [target.required for target in report.targets] == [">= 0.9", ">= 0.98"]
    assert len(report.rows) == 4


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
        ratios = []
        for block in (32, 8):
            name = f"digits in blocks of {block}, {receiver}"
            # Two rounds, in each of which both parties receive a trajectory.
            row = passes[f"{name}, screening, the same trajectories"]
            assert row.baseline == f"{name}, full evaluation, 2 trajectories"
            assert row.ratio is not None
            ratios.append(row.ratio)
        coarse, fine = ratios
        assert 0 < fine <= coarse <= 1


def test_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("compression", monkeypatch)
    for optimizer, rate in (("adam", 0.003), ("sgd", 0.01)):
        name = f"mlp, {optimizer} {rate}, I = 5, iterations 0 to 20"
        ratios = {row.label: row.ratio for row in report.rows if row.baseline == f"{name}: dense"}
        assert set(ratios) == {f"{name}: Zstandard alone", f"{name}: delta"}
        assert 0.2 < (ratios[f"{name}: delta"] or 0) < (ratios[f"{name}: Zstandard alone"] or 0) < 1
        costs = [row for row in report.rows if row.label.startswith(name) and not row.baseline][1:]
        assert [row.unit for row in costs] == ["MB/s", "MB/s", "Gbit/s"]
        assert all(row.median > 0 for row in costs)
    assert [target.required for target in report.targets] == [">= 2"]


def test_streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    report = quick("streaming", monkeypatch)
    rows = [row for row in report.rows if row.unit == "s"]
    full, screened, streaming, again = rows
    assert screened.baseline == streaming.baseline == full.label
    assert again.baseline == screened.label
    assert again.median == streaming.median
    assert [target.required for target in report.targets] == ["<= 0.75"]
    assert cores is None or os.sched_getaffinity(0) == cores


def test_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("overhead", monkeypatch)
    medians = {row.label: row.median for row in report.rows}
    for size in (4, 16):
        assert medians[f"round of {size} checkpoints, in one process"] > 0
        assert medians[f"round of {size} checkpoints, in one process, on disk"] > 0
        assert medians[f"round of {size} checkpoints, over the network"] > 0
    assert {"the network's cost of a round", "the network's cost of a checkpoint that crosses"} <= set(medians)
    assert [target.required for target in report.targets] == ["<= 1.1"]


def test_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("ledger", monkeypatch)
    rows = {row.label: row for row in report.rows}
    assert rows["verify"].baseline == "hash every entry"
    assert rows["append to SQLite"].baseline == "append in memory"
    assert all(row.unit == "1/s" for row in report.rows)
    assert [target.required for target in report.targets] == [">= 20000"]


def test_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("rollouts", monkeypatch)
    rows = {row.label: row for row in report.rows}
    for pole in ("Gymnasium's pole, 0.5 m", "the learner's, 4.5 m"):
        one = f"{pole}: one gym.make environment"
        assert rows[f"{pole}: 64 at once"].baseline == one
        tossed = f"{one}, coin tosses for a policy"
        assert rows[f"{pole}: 64 at once, coin tosses for a policy"].baseline == tossed
    assert all(row.unit == "1/s" for row in report.rows)
    assert [target.required for target in report.targets] == [">= 20", ">= 20"]


def test_durability(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("durability", monkeypatch)
    memory, disk, *_ = report.rows
    assert disk.label.startswith("session of 1 rounds, on disk")
    assert disk.baseline == memory.label == "session of 1 rounds, in memory"
    assert [target.required for target in report.targets] == ["<= 1.05"]


def test_startup(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("startup", monkeypatch)
    baseline, *commands = report.rows
    assert baseline.label == "import torch"
    assert {row.label for row in commands} == {"comity --help", "comity run --help", "comity --version"}
    assert [target.required for target in report.targets] == ["<= 0.4"]


def test_a_session_that_ends_otherwise_on_disk_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    from comity.bench import durability  # noqa: PLC0415

    digests = iter("abcd")

    def simulate(script: object, *, state: object) -> tuple[SimpleNamespace, None]:
        del script, state
        return SimpleNamespace(digest=next(digests)), None

    monkeypatch.setattr(durability, "simulate", simulate)
    with pytest.raises(AssertionError, match="another model"):
        run("durability", quick=True)


def test_durability_wants_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from comity.bench import durability  # noqa: PLC0415

    monkeypatch.setattr(durability, "filesystem", lambda _: "tmpfs on tmpfs")
    with pytest.raises(InvalidValue, match="received tmpfs on tmpfs"):
        run("durability")


def test_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("rewards", monkeypatch)
    difference = next(row for row in report.rows if "greatest difference" in row.label)
    assert difference.median < 1e-5
    shares = {row.label: row.ratio for row in report.rows if row.baseline == "the whole aggregate"}
    assert shares["5% of the aggregate"] == pytest.approx(0.057, abs=0.01)
    assert shares["50% of the aggregate"] == pytest.approx(0.45, abs=0.05)
    assert {target.required for target in report.targets} >= {"<= 1.5", ">= 1000", ">= 25", "<= 0.055", ">= 100"}


def test_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("guard", monkeypatch)
    labels = {row.label for row in report.rows}
    for setting in ("LeNet-5, period 5", "LeNet-5, period 20", "MLP 64 on digits, period 5"):
        ways = ("training alone", "with rows and pairs", "with groups of 8 too")
        assert {f"{setting}, {way}" for way in ways} <= labels
    assert "MLP 64 on digits, period 5, a release" in labels
    assert {target.required for target in report.targets} == {"<= 1.1"}


def test_a_wrong_name_is_answered_with_the_near_one() -> None:
    with pytest.raises(InvalidValue, match="received transfr; did you mean transfer"):
        run("transfr")


def test_every_benchmark_is_tested_here() -> None:
    assert {f"test_{name}" for name in known()} <= set(globals())


def test_naming_the_benchmarks_needs_no_torch() -> None:
    code = "import sys, comity.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cifar_is_measured_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from comity.protocols.assisted_learning.studies.benchmarks import screening  # noqa: PLC0415

    measured = []

    def note(name: str, scripts: list[object]) -> dict[str, screening.Comparison]:
        measured.append((name, len(scripts)))
        return {}

    monkeypatch.setattr(screening, "_measure", note)
    monkeypatch.setenv("COMITY_DATA", str(tmp_path))
    screening.run()
    (tmp_path / "cifar10").mkdir()
    screening.run()
    digits = [("digits in blocks of 32", 5), ("digits in blocks of 8", 5)]
    cifar = [("cifar10 in blocks of 256", 1), ("cifar10 in blocks of 64", 1)]
    assert measured == [*digits, *digits, *cifar]


def test_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("trying", monkeypatch)
    assert [target.met for target in report.targets if "bytes" in target.what] == [True]
    assert any("try-out" in row.label for row in report.rows)


def test_bargaining(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("bargaining", monkeypatch)
    assert any("bargain" in row.label for row in report.rows)


def test_weighting(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("weighting", monkeypatch)
    assert any("auxinash" in row.label for row in report.rows)


def test_load(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("load", monkeypatch)
    assert any("watch" in row.label for row in report.rows)


def test_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("rounds", monkeypatch)
    assert {target.required for target in report.targets} == {"<= 3", "<= 1.3"}
    # Whatever else the machine does, a round takes as long as the provider waits.
    assert next(row for row in report.rows if "takes 200 ms more" in row.label).median > 200


def test_rejecting(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("rejecting", monkeypatch)
    assert [row.baseline for row in report.rows if row.ratio is not None] == [
        "LeNet-5 alone, batch 64",
        "LeNet-5 alone, batch 1",
    ]


def test_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skactiveml")
    report = quick("selection", monkeypatch)
    assert [target.required for target in report.targets] == ["<= 0.03", ">= 0.9", "<= 1"]
    assert all(row.baseline.startswith("two ResNet-8 peers") for row in report.rows[1:3])


def test_averaging(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("averaging", monkeypatch)
    assert [row.baseline for row in report.rows if row.ratio is not None] == ["numpy.average of 10 resnet8"]
    assert [target.required for target in report.targets] == ["<= 2"]


def test_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    report = quick("serving", monkeypatch)
    assert any("64 callers" in row.label for row in report.rows)
    # However fast: of many callers at once each is answered.
    assert [target.met for target in report.targets if "at once, answered" in target.what] == [True]
