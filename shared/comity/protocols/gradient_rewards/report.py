"""What rounds and a session came to for all of its clients, from the server's numbers and theirs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from comity.contract import Json
from comity.protocols.gradient_rewards.algorithm import RoundResult
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


def of_rounds(clients: Sequence[str], rounds: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The server's metrics.

    Args:
        clients: The clients, in their order.
        rounds: What each round came to; see `of_round`.
    """

    def mean(name: str) -> list[Json]:
        return [
            sum(each[name][client] or 0.0 for each in rounds) / max(1, len(rounds)) for client in range(len(clients))
        ]

    return {
        "clients": [*clients],
        "importance": mean("importance"),
        "kept_fraction": mean("fraction"),
        "importance_by_round": [each["importance"] for each in rounds],
        "contribution_by_round": [each["contribution"] for each in rounds],
        "fraction_by_round": [each["fraction"] for each in rounds],
        "bytes_by_round": [each["bytes"] for each in rounds],
        "server_accuracy": rounds[-1]["test_accuracy"] if rounds else None,
    }


def merged(server: Mapping[str, Any], clients: Mapping[str, Mapping[str, Any]]) -> dict[str, Json]:
    """The session's metrics; lists are in the order of the clients.

    Args:
        server: The server's metrics.
        clients: The clients' metrics, by party.
    """
    names = server["clients"]
    together = [clients[name]["accuracy"] if name in clients else None for name in names]
    return {
        **server,
        "accuracy_together": together,
        "together_mean": _mean(together),
        "spread": _spread(together),
    }


def with_alone(metrics: Mapping[str, Any], alone: Mapping[str, float | None]) -> dict[str, Json]:
    """The metrics with what each client would have reached alone, and the fairness that follows from it.

    Args:
        metrics: What `merged` gave.
        alone: Test accuracy of each client's own training, by party.
    """
    accuracies = [alone.get(name) for name in metrics["clients"]]
    fairness = pearson_percent(accuracies, metrics["accuracy_together"])
    return {**metrics, "accuracy_alone": accuracies, "alone_mean": _mean(accuracies), "fairness": fairness}


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
