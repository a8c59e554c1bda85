"""Whether a session was worth it, said as it is."""

from __future__ import annotations

from typing import Any

import pytest

from comity.node.sessions.comparing import said
from comity.report.comparison import comparison_table, is_worse, verdict, worse_parts


def of(alone: list[float], together: float, kind: str = "classification") -> dict[str, Any]:
    name = {"classification": "accuracy", "regression": "rmse"}[kind]
    part = {"classification": "recall", "regression": "rmse_by_target"}[kind]
    tests = [{name: each, part: {"a": each, "b": each + 0.1}} for each in alone]
    found: Any = said(kind, tests, {name: together, part: {"a": together, "b": together - 0.2}})
    return {**found, "budget": "as many steps"}


def test_what_got_better_and_which_class_did_not() -> None:
    found = of([0.8], 0.9)
    assert found["gain"] == pytest.approx(0.1)
    assert verdict(found) == "better than alone: accuracy 90.0 % together, 80.0 % alone"
    assert not is_worse(found)
    assert worse_parts(found) == ["b"]
    assert comparison_table(found).rows[0] == ("accuracy", ["80.0 %", "90.0 %", "+10.0 points"])
    assert [name for name, _ in comparison_table(found).rows[1:]] == ["recall of a", "recall of b"]


def test_what_got_worse_is_said_so() -> None:
    found = of([0.9], 0.8)
    assert is_worse(found)
    assert verdict(found).startswith("WORSE than alone")


def test_of_what_falls_less_is_better() -> None:
    found = of([2.0], 1.5, "regression")
    assert found["gain"] == pytest.approx(0.5)
    assert not is_worse(found)
    assert verdict(found).startswith("better than alone: RMSE 1.5 together, 2 alone")


def test_a_difference_within_what_trainings_differ_by_is_none() -> None:
    found = of([0.80, 0.90], 0.84)
    assert found["alone"] == pytest.approx(0.85)
    assert found["spread"] == pytest.approx(0.0707, abs=1e-3)
    assert not is_worse(found)
    assert verdict(found).startswith("no difference")
    assert is_worse(of([0.80, 0.82], 0.5))


def test_without_a_score_nothing_is_said() -> None:
    assert said("classification", [{}], {"accuracy": 0.9}) is None
    assert said("classification", [{"accuracy": 0.9}], {}) is None
