"""Sessions that differ in their seed alone, as one result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from blake3 import blake3

from comity.protocol.presentation import Summary


def together(results: Sequence[Mapping[str, Any]], summary: Summary) -> dict[str, Any]:
    """One result of several.

    Args:
        results: Results, as `SessionResult.to_json` gives them, of the same protocol and rounds.
        summary: What of them people compare.

    Returns:
        The first, with the mean of every metric that people compare, and under `metrics.by_session` all of them; what
        crossed and the wall time are sums, and the digest is that of the list of digests.
    """
    compared = [each.field for each in summary.columns if all(result["metrics"].get(each.field) for result in results)]
    metrics = {name: mean(result["metrics"][name] for result in results) for name in compared}
    crossed = {
        name: dict(sum((Counter(result[name]) for result in results), Counter[str]()))
        for name in ("bytes_sent", "bytes_received")
    }
    return {
        **results[0],
        **crossed,
        "metrics": metrics | {"by_session": {result["session"]: result["metrics"] for result in results}},
        "digest": blake3(b"".join(bytes.fromhex(result["digest"]) for result in results)).hexdigest(),
        "wall_s": sum(result["wall_s"] for result in results),
        "ledger_verified": all(result["ledger_verified"] for result in results),
    }
