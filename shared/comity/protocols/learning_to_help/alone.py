"""What learning to help is compared with: the client's own model, which the session knows already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.protocol.comparing import Alone, Comparing, Test


def _alone(of: Alone) -> Test:
    return _accuracy(of.metrics.get("local_accuracy"))


def _together(metrics: Mapping[str, Any]) -> Test:
    return _accuracy(metrics.get("accuracy"))


def _accuracy(value: Any) -> Test:
    return {} if value is None else {"accuracy": value}


COMPARING = Comparing(_alone, _together, "its own model, which answers everything")
