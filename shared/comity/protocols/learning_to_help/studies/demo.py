"""The demo's session: a client whose model never saw a nine, and a server that has all classes."""

from __future__ import annotations

_SCRIPT = """\
# A client with 270 handwritten digits, none of them a nine, and a server with 898 of all classes.
# Run it in one process with: comity simulate SCRIPT

[session]
protocol = "learning_to_help"
id = "demo-{seed}"
acceptors = ["server"]
rounds = 4              # shares of the test samples that are answered one after the other
seed = {seed}

[session.models.local]
name = "cnn-small"      # the client's own, which stays as it is once it is trained

[session.models.server]
name = "mlp"
options = {{ hidden = 256 }}

[session.models.rejector]
name = "mlp"
options = {{ hidden = 64 }}

[session.terms]
features = "4"          # a query carries what goes into this layer: 256 bytes
c_e = 0.25              # cost of asking
c_1 = 1.25              # cost of a wrong answer from the server, beside it
requests = 500

[simulation]
threads = 1             # of tensor operations, on which the last digits depend

[party.client]
role = "client"
secret = "client-{seed}"
# What leaves here is named: the model, and features, which can be turned back into something like the digits.
policy = {{ egress = ["contract", "local_model", "features"] }}
protocols = {{ learning_to_help = {{ compare = true }} }}    # ask about every test sample, to compare

[party.client.data]
source = "digits"
seed = {seed}
partition = {{ name = "power-law", parties = 2, index = 0, exponent = 6.63, seed = {seed} }}
without = [9]
splits = {{ calibration = {{ share = 0.334 }} }}

[party.server]
role = "server"
secret = "server-{seed}"

[party.server.data]
source = "digits"
seed = {seed}
partition = {{ name = "power-law", parties = 2, index = 1, exponent = 6.63, seed = {seed} }}
"""


def script(seed: int) -> str:
    """The demo's script for a seed."""
    return _SCRIPT.format(seed=seed)
