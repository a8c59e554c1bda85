"""What rounds and a session came to, by labelling step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comity.contract import Json
from comity.protocols.peer_study.terms import PeerStudyTerms

_TEST = "test_"
"""With what a field of a round begins that is a number of a test."""


def of_server(
    clients: Sequence[str], rounds: Sequence[Mapping[str, Any]], terms: PeerStudyTerms, score: str
) -> dict[str, Json]:
    """The server's metrics.

    Args:
        clients: The clients, in their order.
        rounds: What each round came to.
        terms: What was agreed.
        score: The number of a test that models are compared by.
    """
    last = rounds[-1] if rounds else {}
    tested = {name.removeprefix(_TEST): value for name, value in last.items() if name.startswith(_TEST)}
    steps = _last_of_steps([{**each, "round": number} for number, each in enumerate(rounds, start=1)], terms)
    return {
        "clients": [*clients],
        "labels": [each["labels_of_all"] for each in steps],
        "accuracy": [each.get(_TEST + score) for each in steps],
        "labels_by_round": [each["labels_of_all"] for each in rounds],
        "labels_by_client": [each["labels"] for each in rounds],
        "score_by_round": [each.get(_TEST + score) for each in rounds],
        "score": score,
        "server_score": tested.get(score),
        **({"tested": {"server_score": tested}} if tested else {}),
    }


def of_client(
    rounds: Sequence[Mapping[str, Any]], terms: PeerStudyTerms, score: str, tested: Mapping[str, Json]
) -> dict[str, Json]:
    """A client's metrics.

    Args:
        rounds: What each round came to that it took part in.
        terms: What was agreed.
        score: The number of a test that models are compared by.
        tested: What a test of the last model on its own test samples says; empty where it has none.
    """
    steps = _last_of_steps(rounds, terms)
    return {
        "labels": [each["labels"] for each in steps],
        "accuracy": [each.get(_TEST + score) for each in steps],
        "rounds": [each["round"] for each in rounds],
        "labels_by_round": [each["labels"] for each in rounds],
        "score_by_round": [each.get(_TEST + score) for each in rounds],
        "rows_held_by_round": [each["rows_held"] for each in rounds],
        "score": score,
        "own_score": tested.get(score),
        **({"tested": {"own_score": dict(tested)}} if tested else {}),
    }


def merged(server: Mapping[str, Any], clients: Mapping[str, Mapping[str, Any]]) -> dict[str, Json]:
    """The session's metrics: the server's, with what the clients' ledgers say of samples.

    Args:
        server: The server's metrics.
        clients: The clients' metrics, by party.
    """
    return {**server, "protected_crossed": sum(each["protected_crossed"] for each in clients.values())}


def _last_of_steps(rounds: Sequence[Mapping[str, Any]], terms: PeerStudyTerms) -> list[Mapping[str, Any]]:
    """Of each labelling step the last round."""
    return list({terms.step_of(int(each["round"])): each for each in rounds}.values())
