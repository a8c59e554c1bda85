"""The papers' figures and tables: that each is complete, runs, and runs the same again."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from comity.cli.main import app
from comity.data import Dataset
from comity.errors import InvalidValue, MissingFile
from comity.experiments.datasets import Datasets, Samples
from comity.experiments.registry import chosen, experiments
from comity.experiments.reproduction import SCALES, Claim, ExperimentContext, Printed, Row, reproduce, write
from comity.protocols.assisted_learning.studies.algorithms import Algorithms, balanced, pooled
from comity.protocols.assisted_learning.studies.pair import OwnModel
from comity.protocols.assisted_learning.studies.policies import learn, task_of
from comity.protocols.assisted_learning.studies.sizes import SMALL
from comity.protocols.gradient_rewards.studies.federation import Federation, GradientRewards
from comity.protocols.gradient_rewards.studies.sizes import SMOKE, each
from comity.report.drawing import drawing
from comity.simulation.in_process import simulate

NAMES = sorted(experiments())
LEAST_POINTS = 7.0


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    return ExperimentContext(Datasets(tmp_path_factory.mktemp("data"), None))


def test_registry_has_the_tables_and_figures() -> None:
    gradient_rewards = {f"gradient-rewards/table-{at}" for at in (1, 2, 3)}
    gradient_rewards |= {f"gradient-rewards/fig-{at}" for at in range(1, 8)}
    assisted = {f"assisted-learning/fig-{at}" for at in range(1, 21)}
    assisted |= {f"assisted-learning/{each}" for each in ("table-1", "table-2", "remark-1", "theorem-1")}
    own = {f"{each}/{what}" for each in ("assisted-learning", "gradient-rewards") for what in ("protection", "holding")}
    bargaining = {f"nash-bargaining/demo{each}" for each in ("", "-public", "-honest")} | {"nash-bargaining/protection"}
    own |= {f"{each}/protection" for each in ("peer-study", "learning-to-help")}
    own |= {"assisted-learning/several", "peer-study/few-labels", "learning-to-help/local-model"}
    bargaining |= {f"nash-bargaining/{each}" for each in ("fig-1", "fig-2", "fig-3", "table-1", "table-2", "table-3")}
    figures = ("fig-2", "fig-2-cifar10", "fig-4", "fig-7", "table-1", "table-1-cifar10", "table-6", "samples", "scale")
    helping = {f"learning-to-help/{each}" for each in figures}
    figures = (
        "fig-3",
        "fig-3-cifar100",
        "fig-3-standard",
        "fig-3-tiny-imagenet",
        "fig-4",
        "fig-5-parts",
        "fig-5-peers",
        "fig-5-students",
        "fig-6",
        "fig-7",
        "fig-8",
    )
    studying = {f"peer-study/{each}" for each in (*figures, "table-1", "table-2")}
    assert gradient_rewards | assisted | own | bargaining | helping | studying == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_complete(name: str) -> None:
    experiment = experiments()[name]
    assert experiment.name == name
    assert {"smoke", "digits", "paper"} <= set(experiment.scales) <= set(SCALES)
    assert experiment.claims
    assert len({claim.text for claim in experiment.claims}) == len(experiment.claims)
    assert experiment.shows
    assert experiment.substitute
    assert "{" not in experiment.substitute


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str, context: ExperimentContext) -> None:
    texts = pytest.importorskip("matplotlib.text").Text
    if "extra box2d" in experiments()[name].shows:
        pytest.importorskip("Box2D")
    if name == "assisted-learning/fig-16":
        pytest.importorskip("opacus")
    experiment = experiments()[name]
    result = reproduce(experiment, "smoke", context)
    json.dumps(result.to_json())
    # At any size a claim can be judged, so that no run at another scale ends in an error there.
    for claim in experiment.claims:
        assert claim.holds(result.metrics) in {True, False, None}
        # What a proof says holds at every size.
        assert "smoke" not in claim.scales or claim.verdict(result.metrics, "smoke") == "supported"
    with drawing(7.0, 3.2) as figure:
        experiment.draw(result.metrics, figure)
    assert all(axes.lines or axes.patches or axes.images for axes in figure.axes)
    # As large as can be read where a page shows it.
    assert min(text.get_fontsize() for text in figure.findobj(texts)) >= LEAST_POINTS


def test_what_is_written_names_the_data_that_were_used(context: ExperimentContext, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    experiment = experiments()["assisted-learning/table-2"]
    result = reproduce(experiment, "smoke", context)
    paths = write(experiment, result, tmp_path, {"cpu": "one"})
    assert {path.name for path in paths} == {"metrics.json", "comparison.md", "figure.svg", "figure.png"}
    assert all(path.stat().st_size for path in paths)
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert kept["metrics"] == json.loads(json.dumps(result.metrics))
    assert kept["verdicts"].keys() == {claim.text for claim in experiment.claims}
    assert kept["measured_on"] == ["scikit-learn's digits"]
    assert "Data: scikit-learn's digits." in (tmp_path / "comparison.md").read_text()
    assert "scikit-learn's digits" in (tmp_path / "figure.svg").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_measured_on_digits_is_not_called_otherwise(name: str) -> None:
    experiment = experiments()[name]
    for scale in ("smoke", "digits"):
        settings = experiment.scales[scale]
        assert settings.measured_on
        named = json.dumps(asdict(settings), default=str)
        absent = [each for each in ("MNIST", "CIFAR-10", "SVHN", "CINIC-10") if each not in settings.measured_on]
        assert not [each for each in absent if each in named]
    for key in experiment.stand_ins.values():
        assert key in json.dumps(asdict(experiment.scales["digits"]), ensure_ascii=False)


def test_smaller_data_are_named_by_what_they_are() -> None:
    assert experiments()["nash-bargaining/fig-3"].instead("small").endswith("and MNIST, more of it, for the digits")
    assert "CIFAR-10" in experiments()["nash-bargaining/table-3"].instead("small")
    for experiment in experiments().values():
        if "small" in experiment.scales and not experiment.small:
            assert all(each in experiment.instead("small") for each in experiment.scales["small"].measured_on)
        assert not experiment.instead("paper")


def test_experiments_repeat(context: ExperimentContext, tmp_path: Path) -> None:
    experiment = experiments()["gradient-rewards/fig-5"]
    again = reproduce(experiment, "smoke", ExperimentContext(Datasets(tmp_path, None))).metrics
    assert again == reproduce(experiment, "smoke", context).metrics


def test_measurements_are_made_once(context: ExperimentContext) -> None:
    three = [experiments()[f"gradient-rewards/table-{at}"] for at in (1, 2, 3)]
    first, second, third = (reproduce(each, "smoke", context).metrics for each in three)
    assert first is second is third


def test_federation_ends_where_the_session_does(context: ExperimentContext) -> None:
    script = each(SMOKE, "POW").script(context.datasets)
    result, _ = simulate(script)
    federation = Federation(script)
    importance: list[object] = []
    record = federation.run(
        GradientRewards(federation.terms), watch=lambda _, paid, *__: importance.append(list(paid.importance))
    )
    assert record.accuracies[-1] == result.metrics["score_together"]
    assert importance == result.metrics["importance_by_round"]


def test_opponents_see_the_session_s_own_data(context: ExperimentContext) -> None:
    algorithms = Algorithms(SMALL, context.datasets)
    assert algorithms.parameters == 64 * 64 + 64 + 64 * 10 + 10


def test_opponents_train_the_parties_own_model(context: ExperimentContext) -> None:
    algorithms = Algorithms(replace(SMALL, hidden=8, own=OwnModel("mlp", 16)), context.datasets)
    assert algorithms.parameters == 64 * 16 + 16 + 16 * 10 + 10


def test_the_policies_that_fly_are_those_that_were_tested(context: ExperimentContext) -> None:
    players = experiments()["assisted-learning/fig-9"].scales["smoke"]
    (progress,) = context.once(learn, players)["AssistPG"]
    tested = task_of(players.script(0)).test_returns(progress.policies[-1])
    assert tested == {name: means[-1] for name, means in progress.tests.items()}
    assert len(progress.policies) == players.rounds


def test_flights_differ_in_their_engine_alone(context: ExperimentContext) -> None:
    pytest.importorskip("Box2D")
    flights = reproduce(experiments()["assisted-learning/fig-11"], "smoke", context).metrics
    starts = {tuple(flight["trace"][0]) for one in flights.values() for flight in one["by_round"][0]}
    assert len(starts) == 1
    powers = {flight["power"] for one in flights.values() for flight in one["by_round"][0]}
    assert powers == {10.0, 40.0}


def test_samples_of_two_kinds_are_pooled_as_models_take_them() -> None:
    labels = torch.tensor([0, 1])
    ours = Dataset(torch.tensor([[8.0], [16.0]]), labels, 1 / 16, 2)
    theirs = Dataset(torch.tensor([[0], [255]], dtype=torch.uint8), labels, 1 / 255, 2)
    together = pooled(ours, theirs)
    assert together.prepare(together.inputs, (), ()).flatten().tolist() == [0.5, 1.0, 0.0, 1.0]
    assert pooled(ours, ours).scale == ours.scale


def test_balanced_samples_have_as_many_of_each_class() -> None:
    labels = torch.tensor([2, 0, 2, 2, 0, 1, 2])
    places = balanced(labels)
    assert labels[places].bincount().tolist() == [4, 4, 4]
    assert set(places.tolist()) == set(range(7))


def test_verdicts() -> None:
    claim = Claim("more", lambda metrics: metrics["a"] > 1)
    assert claim.verdict({"a": 2}, "digits") == "supported"
    assert claim.verdict({"a": 0}, "paper") == "not supported"
    assert claim.verdict({"a": 2}, "smoke") == "not testable at this scale"
    assert Claim("?", lambda _: None).verdict({}, "digits") == "not testable at this scale"


def test_a_printed_number_has_its_counterpart() -> None:
    printed = Printed("a, %", ("a", "b"), 1.0)
    assert printed.beside({"a": {"b": 2}}) == Row("a, %", 1.0, "a, %", 2.0)
    assert printed.beside({"z": {"b": 2}}, {"a": "z"}) == Row("a, %", 1.0, "z, %", 2.0)
    assert printed.beside({"a": {"c": 2}}) == Row("a, %", 1.0, "", None)


def test_names_are_patterns_and_a_wrong_one_is_told() -> None:
    assert [each.name for each in chosen(["gradient-rewards/table-*"])] == [
        f"gradient-rewards/table-{at}" for at in (1, 2, 3)
    ]
    with pytest.raises(InvalidValue, match="did you mean gradient-rewards/table-1"):
        chosen(["gradient-rewards/tabel-1"])


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="COMITY_DATA"):
        Datasets(tmp_path / "kept", tmp_path).section(Samples("cifar10"))


def test_command_lists_and_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runner = CliRunner()
    listed = runner.invoke(app, ["reproduce", "--list", "--json"])
    assert [row["name"] for row in json.loads(listed.stdout)["experiments"]] == list(experiments())
    name = "assisted-learning/fig-1"
    ran = runner.invoke(app, ["reproduce", name, "--scale", "smoke", "--out", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert "supported: the global loss never rises" in ran.output
    assert (tmp_path / name / "smoke" / "comparison.md").is_file()
