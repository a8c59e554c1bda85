"""The demo: what its switches do, and that who does harm loses power."""

from __future__ import annotations

from typing import Any

import pytest

from comity.cli.switches import taken_apart
from comity.errors import UsageError
from comity.experiments import demo_script, with_baselines
from comity.node.sessions.script import Script, parse_script
from comity.simulation.in_process import simulate

NAME = "nash-bargaining"


def script(*switches: str, rounds: int | None = None) -> Script:
    found = parse_script(demo_script(NAME, 0, switches=switches))
    if rounds is None:
        return found
    return found.model_copy(update={"session": found.session.model_copy(update={"rounds": rounds})})


def test_switches_change_the_session() -> None:
    guarded, public, honest = script(), script("public"), script("honest")
    assert {party.privacy.preset for party in guarded.party.values() if party.role == "provider"} == {"guarded"}
    assert {party.privacy.preset for party in public.party.values()} == {"public"}
    assert [*honest.party] == ["learner", "same", "related", "honest"]
    assert honest.session.acceptors == ("same", "related", "honest") == (*script("public", "honest").session.acceptors,)
    with pytest.raises(UsageError, match="no such switch of the demo nash-bargaining"):
        demo_script(NAME, 0, switches=["honets"])


def test_a_command_line_is_taken_apart() -> None:
    assert taken_apart([NAME, "--honest"], []) == (NAME, ["honest"])
    assert taken_apart(["--public", NAME, "--honest"], []) == (NAME, ["public", "honest"])
    with pytest.raises(UsageError, match="No such option: --honest"):
        taken_apart(["gradient-rewards", "--honest"], [])
    with pytest.raises(UsageError, match="did you mean --seed"):
        taken_apart(["--sede"], ["--seed"])
    with pytest.raises(UsageError, match="one demo is shown at a time"):
        taken_apart([NAME, "gradient-rewards"], [])


def test_metrics_name_who_permutes_labels() -> None:
    short = script("public", rounds=3)
    metrics = with_baselines(short, simulate(short)[1].metrics)
    assert metrics["harmful"] == "harmful"
    assert all(isinstance(metrics[f"accuracy_{name}"], float) for name in ("alone", "equal", "bargained"))
    control = script("public", "honest", rounds=1)
    assert with_baselines(control, simulate(control)[1].metrics)["harmful"] is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_does_harm_loses_power() -> None:
    whole = script()
    metrics: Any = with_baselines(whole, simulate(whole)[1].metrics)
    powers = dict(metrics["powers"])
    harmful = powers.pop("harmful")
    assert harmful < min(powers.values())
    assert harmful <= 0.02
    assert metrics["accuracy_bargained"] >= metrics["accuracy_equal"] + 0.01
    assert metrics["accuracy_bargained"] >= metrics["accuracy_alone"] + 0.01
    assert metrics["worth"][0] > 0 > metrics["worth"][2]
