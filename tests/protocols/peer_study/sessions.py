"""Peer study in small: two clients that choose twice, with trainings of a few steps."""

from __future__ import annotations

from tests.cases import Session

_CLIENTS = ("ann", "bob")


def _session(
    *,
    privacy: str,
    hidden: int = 8,
    terms: str = "",
    per_class: int = 12,
    known: float = 0.9,
    uploads: bool = False,
    rounds: int = 4,
    labels: tuple[int, int] = (10, 6),
) -> str:
    """A server and two clients, each with its share of the digits, half of the pool protected."""
    egress = ', egress = ["contract", "update", "checkpoint", "sample"]' if uploads else ""
    consent = ', consent = "standing"' if uploads else ""
    fewest = "" if labels[0] >= 10 else f", min_samples = {labels[0]}"
    mode = 'mode = "upload"' if uploads else ""
    clients = "".join(
        f"""
[party.{name}]
role = "client"
secret = "{name}'s"
policy = {{ min_clients = 2{fewest}{egress} }}
privacy = {privacy}
protocols = {{ peer_study = {{ noise = 0.1{consent} }} }}
[party.{name}.data]
source = "digits"
per_class = {per_class}
partition = {{ name = "uniform", parties = 2, index = {index} }}
splits = {{ pool = {{ share = {known}, protected = 0.5 }} }}
"""
        for index, name in enumerate(_CLIENTS)
    )
    return f"""
[session]
protocol = "peer_study"
id = "small"
acceptors = ["server"]
rounds = {rounds}
seed = 3
[session.models.teacher]
name = "mlp"
options = {{ hidden = {hidden} }}
[session.models.student]
name = "mlp"
options = {{ hidden = 4 }}
[session.task]
input_shape = [1, 8, 8]
classes = 10
[session.terms]
clients = 2
min_clients = 2
steps = 4
initial = {labels[0]}
budget = {labels[1]}
rounds_per_step = 2
{terms}
{mode}
[party.server]
role = "server"
secret = "server's"
policy = {{ min_clients = 2 }}
{clients}
"""


UPLOADS = _session(privacy='{ preset = "public" }', uploads=True)
"""Labelled samples leave, and the server trains."""

SESSIONS = {
    "plain": Session(_session(privacy='{ preset = "public" }'), repeated=4),
    # Its models are judged, and what stays of one is what the round began with.
    "guarded-and-going-on": Session(
        _session(
            privacy='{ preset = "guarded", min_distinct = 8, width_factor = 0, max_batch_share = 1.0 }',
            hidden=6,
            terms="restart = false",
            per_class=24,
            known=0.7,
        ),
        repeated=4,
    ),
    # As `UPLOADS`, with fewer samples: each takes five points at which a node can die, and one is like the other.
    "uploads": Session(_session(privacy='{ preset = "public" }', uploads=True, rounds=3, labels=(3, 2)), repeated=4),
}
