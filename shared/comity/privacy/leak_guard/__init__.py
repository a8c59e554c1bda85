"""The leak guard: keeps in the node what would give single samples away (extra to differential privacy, no guarantee).

It judges where a change comes from, not what it looks like: from the per-sample output gradients of each layer in the
training's own backward pass. Rows that come mostly from one sample keep what was last sent of them.
"""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.privacy.leak_guard.collecting import Collector, unjudged, widest
    from comity.privacy.leak_guard.guard import LeakGuard, Released
    from comity.privacy.leak_guard.rules import Rules
    from comity.privacy.leak_guard.start_weights import parallel_rows
    from comity.privacy.leak_guard.verdict import Verdict
else:
    __getattr__ = lazily(
        __name__,
        {
            "collecting": ["Collector", "unjudged", "widest"],
            "guard": ["LeakGuard", "Released"],
            "rules": ["Rules"],
            "start_weights": ["parallel_rows"],
            "verdict": ["Verdict"],
        },
    )

__all__ = ["Collector", "LeakGuard", "Released", "Rules", "Verdict", "parallel_rows", "unjudged", "widest"]
