"""Assisted learning in small."""

from __future__ import annotations

from tests.cases import Session

_TERMS = """
learning_rate = 0.01
batch_size = 16
iterations = 12
sampling_period = 2
evaluation_batch_size = 16
"""
_SGD = """
optimizer = "sgd"
learning_rate = 0.1
batch_size = 24
iterations = 20
sampling_period = 3
evaluation_batch_size = 64
"""
_TURNS = """
learning_rate = 0.01
batch_size = 16
iterations = 6
sampling_period = 2
evaluation_batch_size = 64
order = "rotating"
trainers = 2
"""


def _session(terms: str, providers: str = "provider", *, hidden: int = 8, per_class: int, privacy: str = "") -> str:
    """A learner and those who help it, each with its share of the digits."""
    names = providers.split()
    acceptors = ", ".join(f'"{name}"' for name in names)
    parties = "".join(
        f"""
[party.{name}]
role = "{"provider" if index else "learner"}"
secret = "{name}'s"
{privacy}
[party.{name}.data]
source = "digits"
per_class = {per_class}
partition = {{ name = "uniform", parties = {1 + len(names)}, index = {index} }}
"""
        for index, name in enumerate(["learner", *names])
    )
    return f"""
[session]
protocol = "assisted_learning"
id = "small"
acceptors = [{acceptors}]
rounds = 2
seed = 3
[session.model]
name = "mlp"
options = {{ hidden = {hidden} }}
[session.terms]
{terms}
{parties}
"""


SESSIONS = {
    # Whoever is killed trains again from the last checkpoint on.
    "plain": Session(_session(_TERMS, per_class=10), repeated=2),
    "changes": Session(_session(_TERMS + 'trajectory_encoding = "delta"', per_class=10), repeated=2),
    # Whoever goes on holds the same rows back: they decide the digest, and their share is among the metrics.
    "guarded": Session(
        _session(_SGD, per_class=20, privacy='privacy = { preset = "guarded", min_distinct = 40 }'), repeated=3
    ),
    # In a round two train, one after the other, and the third says its losses.
    "several-providers": Session(_session(_TURNS, "hospital lab office", hidden=4, per_class=8), repeated=2),
}
