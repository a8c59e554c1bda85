"""Sessions of the packages' protocols, in small."""

from __future__ import annotations

from federated_count.studies import counting
from teacher_votes.studies import pooling, teaching

SCRIPTS = {"federated_count": counting(3), "teacher_votes": teaching(3), "vote_pool": pooling(3)}
"""Scripts by protocol."""
