"""The demo's session: five clients with as many digits each, of which three have some of theirs labelled wrongly."""

from __future__ import annotations

_SCRIPT = """\
# Five clients with 270 handwritten digits each; the first three have labelled 60, 40 and 20 % of theirs wrongly.
# Run it in one process with: comity simulate SCRIPT

[session]
protocol = "gradient_rewards"
id = "demo-{seed}"
acceptors = ["server"]
rounds = 100
seed = {seed}

[session.model]
name = "mlp"
options = {{ hidden = 32 }}  # five samples or more for each unit, as the clients' guard wants it

[session.task]          # the server has no say in what its clients' data are
input_shape = [1, 8, 8]
classes = 10

[session.terms]
clients = 5             # the first round opens when so many have joined
min_clients = 3         # one of whose update nothing may leave sits the round out
optimizer = "sgd"
learning_rate = 0.15
batch_size = 32
epochs = 2
length = 0.25           # Γ: of every update
alpha = 0.95            # weight of the past in a client's importance
beta = 1.0              # the lower, the steeper rewards fall with importance
floor = 0.001

[simulation]
baselines = true
threads = 1             # of tensor operations, on which the last digits depend

[party.server]
role = "server"
secret = "server-{seed}"
data = {{ source = "digits", seed = {seed} }}   # to test on; it trains on nothing
"""
_CLIENT = """
[party.{name}]
role = "client"
secret = "{name}-{seed}"
privacy = {{ preset = "guarded" }}   # what single samples show of an update stays here, and joins the next

[party.{name}.data]
source = "digits"
seed = {seed}
partition = {{ name = "uniform", parties = 5, index = {index}, seed = {seed} }}
"""
WRONG = (0.6, 0.4, 0.2, 0.0, 0.0)
"""Share of each client's labels that are wrong (section 5 of the paper has 20, 40 and 60 %)."""


def script(seed: int) -> str:
    """The demo's script for a seed."""
    clients = ""
    for index, wrong in enumerate(WRONG):
        clients += _CLIENT.format(name=f"client-{index + 1}", index=index, seed=seed)
        clients += f"label_noise = {wrong}\n" if wrong else ""
    return _SCRIPT.format(seed=seed) + clients
