"""What a client, a server and both together are worth on labelled samples: Table 6 of the paper, and the risk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from comity.contract import Json
from comity.protocols.learning_to_help.algorithm import generalized_zero_one_loss
from comity.protocols.learning_to_help.training import Costs

Shares = Mapping[str, float | None]
"""By group of samples: `all`, and `missing_class` and `other_classes` where a class is named."""


@dataclass(frozen=True)
class Evaluation:
    """Shares are 0 to 1, and None for a group without samples.

    Attributes:
        local: Accuracy of m.
        remote: Accuracy of e.
        joint: Accuracy of whoever answers.
        reject_rate: Share that is REMOTE.
        risk: Mean generalized 0-1 loss.
        risk_never_ask: The same where m answers everything.
        risk_always_ask: The same where e does.
    """

    local: Shares
    remote: Shares
    joint: Shares
    reject_rate: Shares
    risk: float
    risk_never_ask: float
    risk_always_ask: float


def evaluate(
    remote: Bool[Tensor, " samples"],
    local: Int[Tensor, " samples"],
    server: Int[Tensor, " samples"],
    labels: Int[Tensor, " samples"],
    costs: Costs,
    *,
    missing_class: int | None = None,
) -> Evaluation:
    """Compares decisions and answers with labels.

    Args:
        remote: True where the server was asked.
        local: The class that m says, of each sample.
        server: The class that e says, also where it was not asked.
        labels: The samples' classes; at least one sample.
        costs: What asking costs.
        missing_class: A class to be shown apart from the others, such as one that m never saw.
    """
    groups = {"all": torch.ones_like(remote)}
    if missing_class is not None:
        groups |= {"missing_class": labels == missing_class, "other_classes": labels != missing_class}
    local_correct, server_correct = local == labels, server == labels

    def shares(flags: Tensor) -> Shares:
        return {
            name: float(flags[group].double().mean()) if bool(group.any()) else None for name, group in groups.items()
        }

    def risk(asked: Tensor) -> float:
        return float(generalized_zero_one_loss(asked, local_correct, server_correct, costs.c_e, costs.c_1).mean())

    return Evaluation(
        local=shares(local_correct),
        remote=shares(server_correct),
        joint=shares(torch.where(remote, server_correct, local_correct)),
        reject_rate=shares(remote),
        risk=risk(remote),
        risk_never_ask=risk(torch.zeros_like(remote)),
        risk_always_ask=risk(torch.ones_like(remote)),
    )


def by_reject_rate(
    scores: Float[Tensor, " samples"],
    local: Int[Tensor, " samples"],
    server: Int[Tensor, " samples"],
    labels: Int[Tensor, " samples"],
    points: int = 21,
) -> tuple[list[float], list[float]]:
    """What both together are worth if fewer were asked about: those with the greatest scores first.

    Args:
        scores: What the rejector says of asking, of each sample.
        local: The class that m says.
        server: The class that e says; -1 where it was not asked.
        labels: The samples' classes; at least one sample.
        points: Most reject rates at which it is said.

    Returns:
        Reject rates, from 0 to the greatest at which all answers are known, and the accuracy at each.
    """
    order = scores.argsort(descending=True, stable=True)
    known = server[order] >= 0
    most = len(order) if bool(known.all()) else int(known.int().argmin())
    counts = sorted({round(step * most / (points - 1)) for step in range(points)})
    # What is gained, or lost, by each that is asked about.
    gains = ((server == labels).int() - (local == labels).int())[order].cumsum(0)
    alone = int((local == labels).sum())
    right = [alone + (int(gains[count - 1]) if count else 0) for count in counts]
    return [count / len(order) for count in counts], [each / len(order) for each in right]


def report(found: Evaluation, *, compared: bool) -> dict[str, Json]:
    """An evaluation as metrics of a session; `tested` is Table 6 of the paper, with the risk beside it.

    Args:
        found: The evaluation.
        compared: Whether the server was asked about every sample; if not, nothing can be said of it alone.
    """

    def in_words(shares: Shares) -> dict[str, Json]:
        return {name.replace("_", " "): share for name, share in shares.items()}

    tested: dict[str, Json] = {
        "local_accuracy": {"risk": found.risk_never_ask, "accuracy": in_words(found.local)},
        "accuracy": {"risk": found.risk, "accuracy": in_words(found.joint)},
        "asked": {"accuracy": in_words(found.reject_rate)},
    }
    if compared:
        tested["remote_accuracy"] = {"risk": found.risk_always_ask, "accuracy": in_words(found.remote)}
    shares: dict[str, Json] = {
        "tested": tested,
        "local": dict(found.local),
        "joint": dict(found.joint),
        "reject_rate": dict(found.reject_rate),
        "risk": found.risk,
        "risk_never_ask": found.risk_never_ask,
        "accuracy": found.joint["all"],
        "local_accuracy": found.local["all"],
    }
    if compared:
        shares |= {
            "remote": dict(found.remote),
            "remote_accuracy": found.remote["all"],
            "risk_always_ask": found.risk_always_ask,
        }
    return shares
