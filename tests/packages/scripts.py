"""Sessions of the packages' protocols, in small."""

from __future__ import annotations

from federated_count.studies import counting
from teacher_votes.studies import pooling, questioning, teaching

SCRIPTS = {
    name: demo(3).replace("rounds = 10", "rounds = 3")
    for name, demo in (
        ("federated_count", counting),
        ("teacher_votes", teaching),
        ("vote_pool", pooling),
        ("vote_questions", questioning),
    )
}
"""Scripts by protocol."""
