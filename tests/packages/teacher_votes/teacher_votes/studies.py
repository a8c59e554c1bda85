"""Demos of both protocols."""

from __future__ import annotations

from comity.experiments.studies import Demo, Studies

_PARTY = """
[party.{name}]
role = "{role}"
secret = "{name}-{seed}"
policy = {{ egress = ["contract", "vote"] }}
data = {{ source = "digits", per_class = 10, partition = {{ name = "uniform", parties = 4, index = {index} }} }}
"""
_TEACHING = """\
[session]
protocol = "teacher_votes"
id = "votes-{seed}"
acceptors = ["hospital", "lab", "office"]
rounds = 10
seed = {seed}
[session.models.student]
name = "mlp"
options = {{ hidden = 4 }}
[simulation]
threads = 1
"""
_POOLING = """\
[session]
protocol = "vote_pool"
id = "pool-{seed}"
acceptors = ["registry"]
rounds = 10
seed = {seed}
[simulation]
threads = 1
"""


_QUESTIONING = """\
[session]
protocol = "vote_questions"
id = "questions-{seed}"
acceptors = ["hospital"]
rounds = 10
seed = {seed}
terms = {{ queries = 60 }}
[simulation]
threads = 1
"""


def questioning(seed: int) -> str:
    """A student and an oracle."""
    return _script(_QUESTIONING, [("clinic", "inquirer"), ("hospital", "oracle")], seed)


def teaching(seed: int) -> str:
    """A student and three teachers."""
    parties = [("clinic", "student"), ("hospital", "teacher"), ("lab", "teacher"), ("office", "teacher")]
    return _script(_TEACHING, parties, seed)


def pooling(seed: int) -> str:
    """A server and three clients."""
    parties = [("registry", "server"), ("ann", "client"), ("bob", "client"), ("cleo", "client")]
    return _script(_POOLING, parties, seed)


def _script(session: str, parties: list[tuple[str, str]], seed: int) -> str:
    tables = [_PARTY.format(name=name, role=role, index=index, seed=seed) for index, (name, role) in enumerate(parties)]
    return session.format(seed=seed) + "".join(tables)


STUDIES = Studies(
    protocol="teacher_votes", demos={"teacher-votes": Demo("teacher_votes.studies:teaching", kill="receipt:2")}
)
POOL_STUDIES = Studies(
    protocol="vote_pool", demos={"vote-pool": Demo("teacher_votes.studies:pooling", kill="receipt:4")}
)
QUESTION_STUDIES = Studies(
    protocol="vote_questions",
    demos={"vote-questions": Demo("teacher_votes.studies:questioning", kill="commit:12")},
)
