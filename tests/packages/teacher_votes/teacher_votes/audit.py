"""`comity audit agreement`: a teacher that stands alone says more of its samples than one of many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.contract import Json
from comity.errors import InvalidValue
from comity.protocol.audits import AuditContext


def agreement(context: AuditContext) -> Mapping[str, Json]:
    """The share of its votes with which each teacher stood alone."""
    metrics: Any = context.session.result.get("metrics")
    if not metrics:
        raise InvalidValue("only the student knows all votes", expected="its state_dir", received="a teacher's")
    alone = dict.fromkeys(metrics["teachers"], 0)
    for votes in metrics["votes"]:
        present = {teacher: said for teacher, said in zip(metrics["teachers"], votes, strict=True) if said is not None}
        for each in zip(*present.values(), strict=True):
            for teacher, vote in zip(present, each, strict=True):
                alone[teacher] += each.count(vote) == 1
    return {teacher: count / len(metrics["labels"]) for teacher, count in alone.items()}
