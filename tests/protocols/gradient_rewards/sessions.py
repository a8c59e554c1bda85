"""Gradient rewards in small."""

from __future__ import annotations

from tests.cases import Session

_CLIENTS = ("ann", "bob", "cleo")


def _session(hidden: int, privacy: str = "") -> str:
    """A server and three clients, each with its share of the digits."""
    clients = "".join(
        f"""
[party.{name}]
role = "client"
secret = "{name}'s"
{privacy}
data = {{ source = "digits", per_class = 12, partition = {{ name = "uniform", parties = 3, index = {index} }} }}
"""
        for index, name in enumerate(_CLIENTS)
    )
    return f"""
[session]
protocol = "gradient_rewards"
id = "small"
acceptors = ["server"]
rounds = 2
seed = 3
[session.model]
name = "mlp"
options = {{ hidden = {hidden} }}
[session.task]
input_shape = [1, 8, 8]
classes = 10
[session.terms]
clients = 3
learning_rate = 0.1
batch_size = 16
epochs = 1
[party.server]
role = "server"
secret = "server's"
{clients}
"""


# Whoever is killed makes its update of the round again.
SESSIONS = {
    "plain": Session(_session(4), repeated=3),
    # What clients hold back of one update joins the next.
    "held-rows": Session(
        _session(6, 'privacy = { preset = "guarded", min_distinct = 8, width_factor = 0 }'), repeated=3
    ),
}
