"""What a session came to for its parties, from the learner's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comity.contract import Contract, Json
from comity.protocols.nash_bargaining.choices import score_field
from comity.session.stopping import tests_of
from comity.tasks.scores import score_of


def of_rounds(
    providers: Sequence[str], rounds: Sequence[Mapping[str, Any]], score: str, tested: Mapping[str, Json]
) -> dict[str, Json]:
    """The learner's metrics.

    Args:
        providers: The providers, in their order; in each round, the learner comes first.
        rounds: What each round came to.
        score: The number of a test that models are compared by.
        tested: What the learner's test says of the model at the end; empty where it has none.
    """
    outcome = score_field(score, "bargained")
    last = rounds[-1]["power_after"] if rounds else []
    helped = [[each["help"][1 + at] for each in rounds] for at in range(len(providers))]
    return {
        "score": score,
        outcome: tested.get(score),
        **({"tested": {outcome: {**tested}}} if tested else {}),
        "providers": [*providers],
        "power": [*last[1:]] if last else [None for _ in providers],
        "powers": dict(zip(providers, last[1:], strict=False)),
        "main_power": last[0] if last else None,
        "powers_by_round": [each["power"][1:] for each in rounds],
        "weights_by_round": [each["alpha"][1:] for each in rounds],
        "help_by_round": [each["help"][1:] for each in rounds],
        "providers_by_round": [each["providers"] for each in rounds],
        "worth": [sum(each) for each in helped],
        "rounds_helped": [sum(one == "here" for one in each) for each in _columns(providers, rounds)],
        "own_help": sum(each["help"][0] for each in rounds),
        "degenerate_rounds": sum(bool(each["degenerate"]) for each in rounds),
        "rows_held_by_round": [each["rows_held"] for each in rounds],
        score_field(score, "by_round"): [each.get(f"test_{score}") for each in rounds],
    }


def _columns(providers: Sequence[str], rounds: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[each["providers"][at] for each in rounds] for at in range(len(providers))]


def so_far(contract: Contract, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The learner's metrics while the session goes on."""
    return of_rounds(contract.acceptors, rounds, score_of(contract.task.kind).name, tests_of(rounds[-1]))
