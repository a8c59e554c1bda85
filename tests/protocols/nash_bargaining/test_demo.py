"""The demo: what its switches do, and that who does harm loses power."""

from __future__ import annotations

from pathlib import Path

import pytest

from comity.cli.switches import taken_apart
from comity.errors import UsageError
from comity.experiments import demo_script, with_baselines
from comity.experiments.datasets import Datasets
from comity.experiments.registry import experiments
from comity.experiments.reproduction import ExperimentContext
from comity.node.sessions.script import Script, parse_script
from comity.protocols.nash_bargaining.studies.seeds import Seeds, measure
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
def test_who_does_harm_loses_power(tmp_path: Path) -> None:
    metrics = measure(Seeds((0, 6)), ExperimentContext(Datasets(tmp_path, None)))
    claims = experiments()["nash-bargaining/demo"].claims
    assert {claim.text: claim.holds(metrics) for claim in claims} == dict.fromkeys((each.text for each in claims), True)
    for run in metrics["by_seed"].values():
        assert run["worth"][0] > 0 > run["worth"][2]
