"""Peer study in small: two clients that choose twice, with trainings of a few steps."""

from __future__ import annotations

from tests.cases import Session

_CLIENTS = ("ann", "bob")


def _session(*, privacy: str, hidden: int = 8, terms: str = "", per_class: int = 12, known: float = 0.9) -> str:
    """A server and two clients, each with its share of the digits, half of the pool protected."""
    clients = "".join(
        f"""
[party.{name}]
role = "client"
secret = "{name}'s"
policy = {{ min_clients = 2 }}
privacy = {privacy}
protocols = {{ peer_study = {{ noise = 0.1 }} }}
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
rounds = 4
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
initial = 10
budget = 6
rounds_per_step = 2
{terms}
[party.server]
role = "server"
secret = "server's"
policy = {{ min_clients = 2 }}
{clients}
"""


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
}
