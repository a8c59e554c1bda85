"""A session of Nash bargaining in small: a learner, and three providers with tasks of their own."""

from __future__ import annotations

from tests.cases import Session

SCRIPT = """
[session]
protocol = "nash_bargaining"
id = "small"
acceptors = ["same", "related", "harmful"]
rounds = 4
seed = 3
[session.model]
name = "mlp"
options = { hidden = 8 }
[session.terms]
batch_size = 16
local_steps = 2
power_every = 2
[party.learner]
secret = "learner's"
role = "learner"
privacy = { preset = "public" }
data = { source = "digits", partition = { name = "uniform", parties = 20, index = 0 } }
[party.same]
secret = "same's"
role = "provider"
privacy = { preset = "public" }
data = { source = "digits", partition = { name = "uniform", parties = 20, index = 1 } }
[party.related]
secret = "related's"
role = "provider"
privacy = { preset = "public" }
[party.related.data]
source = "digits"
partition = { name = "uniform", parties = 20, index = 2 }
relabel = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
[party.harmful]
secret = "harmful's"
role = "provider"
privacy = { preset = "public" }
[party.harmful.data]
source = "digits"
partition = { name = "uniform", parties = 20, index = 3 }
relabel = [3, 7, 0, 5, 9, 1, 8, 2, 6, 4]
"""


def guarded(script: str = SCRIPT) -> str:
    """The same session, whose providers have a leak guard."""
    head, *providers = script.split('role = "provider"\nprivacy = { preset = "public" }')
    privacy = 'role = "provider"\nprivacy = { preset = "guarded", min_distinct = 16, width_factor = 1 }'
    return privacy.join([head, *providers])


SESSIONS = {
    "plain": Session(SCRIPT.replace("rounds = 4", "rounds = 3"), repeated=4),
    # A head of its own, and rows that are held back.
    "guarded": Session(guarded().replace("rounds = 4", "rounds = 3"), repeated=4),
}
