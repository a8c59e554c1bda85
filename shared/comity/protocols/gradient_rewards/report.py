"""What a session came to for all of its clients, from the server's metrics and theirs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from comity.contract import Json

_LEAST_SPREAD = 0.01
"""Below this spread of final accuracies a correlation says nothing."""


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
