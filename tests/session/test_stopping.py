"""When a session ends before all rounds that were bought."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from comity.contract import Contract
from comity.errors import InvalidValue
from comity.session.stopping import RoundProgress, StoppingTerms, require_usable_target


def rounds(*scores: float | None) -> list[RoundProgress]:
    return [RoundProgress({} if each is None else {"accuracy": each, "loss": 1 - each}) for each in scores]


@pytest.mark.parametrize(
    ("terms", "scores", "says"),
    [
        ({}, [0.5, 0.5, 0.5], None),
        ({"target": 0.9}, [0.7, 0.89], None),
        ({"target": 0.9}, [0.7, 0.9], "accuracy 0.9 reaches the target of 0.9"),
        ({"target": 0.2, "target_metric": "loss"}, [0.7, 0.8], "loss 0.2 reaches the target of 0.2"),
        ({"target": 0.2, "target_metric": "loss"}, [0.9, 0.7], None),
        ({"target": 0.1}, [None], None),
        ({"stop_when_stalled": 1}, [0.7, 0.8], None),
        ({"stop_when_stalled": 1}, [0.7, 0.7], "nothing was gained"),
        ({"stop_when_stalled": 2}, [0.7, 0.6, 0.69], "nothing was gained in 2 rounds in a row"),
        ({"stop_when_stalled": 2}, [0.7, 0.6, 0.71], None),
        ({"stop_when_stalled": 1}, [None, None], None),
    ],
)
def test_a_session_ends_where_its_terms_say(
    make_contract: Callable[..., Contract], terms: dict[str, object], scores: list[float | None], says: str | None
) -> None:
    contract = make_contract(rounds=10)
    said = StoppingTerms.model_validate(terms).reason_to_stop(contract, rounds(*scores))
    assert said == (says and f"{says}: the session ends after {len(scores)} of 10 rounds")


def test_what_a_round_says_of_itself_goes_before_its_score(make_contract: Callable[..., Contract]) -> None:
    terms, contract = StoppingTerms(stop_when_stalled=1), make_contract(rounds=10)
    assert terms.reason_to_stop(contract, [RoundProgress({"accuracy": 0.5}, gained=False)]) is not None
    assert terms.reason_to_stop(contract, [*rounds(0.5), RoundProgress({"accuracy": 0.4}, gained=True)]) is None


def test_nothing_is_said_when_no_rounds_are_left(make_contract: Callable[..., Contract]) -> None:
    assert StoppingTerms(target=0.1).reason_to_stop(make_contract(rounds=1), rounds(0.9)) is None


def test_a_target_is_a_number_of_a_test() -> None:
    require_usable_target(StoppingTerms(target=1.0, target_metric="depth.rmse"), "several")
    with pytest.raises(InvalidValue, match="target_metric") as caught:
        require_usable_target(StoppingTerms(target=1.0, target_metric="luck"), "classification")
    assert "accuracy" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("rmse", "classification"),
        ("recall", "classification"),
        ("depth.rmse", "regression"),
        ("accuracy", "regression"),
        ("rmse_by_target", "regression"),
        ("auroc", "segmentation"),
        ("loss", "reinforcement"),
        ("accuracy", "several"),
        ("label.recall", "several"),
    ],
)
def test_a_target_is_one_number_that_the_kinds_test_has(metric: str, kind: str) -> None:
    with pytest.raises(InvalidValue, match="target_metric") as caught:
        require_usable_target(StoppingTerms(target=1.0, target_metric=metric), kind)
    assert metric not in str(caught.value.expected).split(", ")
