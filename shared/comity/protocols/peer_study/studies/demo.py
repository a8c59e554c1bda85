"""The demo's session: two clients with ten labelled digits each, and a pool of which most is protected."""

from __future__ import annotations

_SCRIPT = """\
# Two clients with 10 labelled handwritten digits each and a pool of some 660 more, 90 % of which may never leave.
# Each chooses ten of the others to have labelled, four times. Run it in one process with: comity simulate SCRIPT

[session]
protocol = "peer_study"
id = "demo-{seed}"
acceptors = ["server"]
rounds = 20             # averages: four before the first choice, and four after each
seed = {seed}

[session.models.teacher]
name = "mlp"            # the task model: its weights cross and are averaged
options = {{ hidden = 64 }}

[session.models.student]
name = "mlp"            # a peer: it stays where it is
options = {{ hidden = 24 }}

[session.task]          # the server has no say in what its clients' data are
input_shape = [1, 8, 8]
classes = 10

[session.terms]
clients = 2
min_clients = 2
steps = 60
initial = 0             # the ten that are known are enough to begin with
budget = 10
rounds_per_step = 4
peers = 2

[simulation]
baselines = true        # the same by chance, four times
threads = 1             # of tensor operations, on which the last digits depend

[party.server]
role = "server"
secret = "server-{seed}"
policy = {{ min_clients = 2 }}
data = {{ source = "digits", seed = {seed} }}   # to test on; it trains on nothing
"""
_CLIENT = """
[party.{name}]
role = "client"
secret = "{name}-{seed}"
policy = {{ min_clients = 2 }}      # of two, each can compute the other's model from the average
privacy = {{ preset = "public" }}   # digits are public: so few labels are behind a model that a guard would send none

[party.{name}.data]
source = "digits"
seed = {seed}
partition = {{ name = "uniform", parties = 2, index = {index}, seed = {seed} }}
splits = {{ pool = {{ share = 0.985, protected = 0.9 }} }}
"""


def script(seed: int) -> str:
    """The demo's script for a seed."""
    clients = "".join(_CLIENT.format(name=f"client-{index + 1}", index=index, seed=seed) for index in range(2))
    return _SCRIPT.format(seed=seed) + clients
