"""What rounds and a session came to for all of its clients, from the server's numbers and theirs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from comity.contract import Contract, Json
from comity.protocols.gradient_rewards.algorithm import RoundResult
from comity.session.stopping import tests_of
from comity.tasks.scores import metric, score_of
from comity.tensors import Blob

_LEAST_SPREAD = 0.01
"""Below this spread of final accuracies a correlation says nothing."""


def of_round(clients: Sequence[str], result: RoundResult, paid: Mapping[str, Blob]) -> dict[str, Any]:
    """What a round came to, for each client in its place; None for those who took no part.

    Args:
        clients: The clients, in their order.
        result: The round's result.
        paid: The entries that each gets, encoded, by party.
    """
    at = {client: place for place, client in enumerate(result.present)}

    def those(values: Sequence[Any]) -> list[Any]:
        return [values[at[client]] if client in at else None for client in range(len(clients))]

    blobs = [paid.get(party) for party in clients]
    return {
        "clients": [*clients],
        "present": [clients[client] for client in result.present],
        "contribution": those(result.contribution.tolist()),
        "importance": result.state.importance.tolist(),
        "fraction": those(result.fractions.tolist()),
        "kept": those([len(each.indices) for each in result.rewards]),
        "bytes": [each.size if each is not None else 0 for each in blobs],
        "entries": [each.hex if each is not None else None for each in blobs],
    }


def of_rounds(clients: Sequence[str], rounds: Sequence[Mapping[str, Any]], score: str) -> dict[str, Json]:
    """The server's metrics.

    Args:
        clients: The clients, in their order.
        rounds: What each round came to; see `of_round`.
        score: The number of a test that models are compared by.
    """
    last = rounds[-1] if rounds else {}
    tested = tests_of(last)

    def mean(name: str) -> list[Json]:
        return [
            sum(each[name][client] or 0.0 for each in rounds) / max(1, len(rounds)) for client in range(len(clients))
        ]

    return {
        "clients": [*clients],
        "contribution": mean("contribution"),
        "importance": mean("importance"),
        "kept_fraction": mean("fraction"),
        "importance_by_round": [each["importance"] for each in rounds],
        "contribution_by_round": [each["contribution"] for each in rounds],
        "fraction_by_round": [each["fraction"] for each in rounds],
        "bytes_by_round": [each["bytes"] for each in rounds],
        "score": score,
        "server_score": tested.get(score),
        **({"tested": {"server_score": tested}} if tested else {}),
    }


def so_far(contract: Contract, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The server's metrics while the session goes on; clients may still join, so they are those of the last round."""
    clients = rounds[-1]["clients"]
    padded = [_with_places(each, len(clients)) for each in rounds]
    return of_rounds(clients, padded, score_of(contract.task.kind).name)


def _with_places(fields: Mapping[str, Any], clients: int) -> Mapping[str, Any]:
    """A round's fields with a place for each client, also for those that joined after it."""
    here = len(fields["clients"])
    return {
        name: [*value, *([None] * (clients - here))] if isinstance(value, list) and len(value) == here else value
        for name, value in fields.items()
    }


def merged(server: Mapping[str, Any], clients: Mapping[str, Mapping[str, Any]]) -> dict[str, Json]:
    """The session's metrics; lists are in the order of the clients.

    Args:
        server: The server's metrics.
        clients: The clients' metrics, by party.
    """
    names = server["clients"]
    together = [clients[name]["own_score"] if name in clients else None for name in names]
    tests = [clients[name].get("tested", {}).get("own_score", {}) if name in clients else {} for name in names]
    return {
        **server,
        **_with_tests(server, "together", tests),
        "score_together": together,
        "together_mean": _mean(together),
        "spread": _spread(together),
    }


def with_alone(metrics: Mapping[str, Any], alone: Mapping[str, Mapping[str, Any]]) -> dict[str, Json]:
    """The metrics with what each client would have reached alone, and the fairness that follows from it.

    Args:
        metrics: What `merged` gave.
        alone: What the test of each client's own training says, by party; empty where there is none.
    """
    tests = [alone.get(name, {}) for name in metrics["clients"]]
    scores = [each.get(metrics["score"]) for each in tests]
    # Fairness is of what grows with what a model is worth.
    falls = metric(metrics["score"]).falls
    gains, together = (
        [-e if falls and e is not None else e for e in each] for each in (scores, metrics["score_together"])
    )
    return {
        **metrics,
        **_with_tests(metrics, "alone", tests),
        "score_alone": scores,
        "alone_mean": _mean(scores),
        "fairness": pearson_percent(gains, together),
    }


def _with_tests(metrics: Mapping[str, Any], name: str, tests: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The tests of all clients' models, with their means among those that people compare."""
    if not any(tests):
        return {}
    return {
        "tested": {**metrics.get("tested", {}), f"{name}_mean": _mean_test([each for each in tests if each])},
        f"tested_{name}": [{**each} for each in tests],
    }


def _mean_test(tests: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The mean of several tests, metric by metric, over those that have it."""
    found: dict[str, Json] = {}
    for name in dict.fromkeys(name for each in tests for name in each):
        values = [each[name] for each in tests if each.get(name) is not None]
        if values and isinstance(values[0], Mapping):
            found[name] = _mean_test(values)
        else:
            found[name] = math.fsum(values) / len(values) if values else None
    return found


def pearson_percent(alone: Sequence[float | None], together: Sequence[float | None]) -> float | None:
    """Fairness: 100 times the correlation of standalone and final accuracies (section 5 of the paper).

    None where an accuracy is missing, or the final ones differ by so little that a correlation says nothing.
    """
    spread = _spread(together)
    if spread is None or spread < _LEAST_SPREAD or None in alone or len(set(alone)) == 1:
        return None
    first = [float(value) for value in alone if value is not None]
    second = [float(value) for value in together if value is not None]
    return 100 * statistics.correlation(first, second)


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known and len(known) == len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
