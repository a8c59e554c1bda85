"""The demo of the federated count."""

from __future__ import annotations

from comity.experiments.studies import Demo, Studies

_SCRIPT = """\
[session]
protocol = "federated_count"
id = "count-{seed}"
acceptors = ["registry"]
rounds = 10
seed = {seed}
[simulation]
threads = 1
[party.clinic]
role = "analyst"
policy = {{ egress = ["contract", "count"] }}
data = {{ source = "digits", per_class = 10, partition = {{ name = "imbalance", gamma = 0.6, share = "learner" }} }}
[party.registry]
role = "site"
policy = {{ egress = ["contract", "count"] }}
data = {{ source = "digits", per_class = 10, partition = {{ name = "imbalance", gamma = 0.6, share = "provider" }} }}
"""


def counting(seed: int) -> str:
    """Two parties that count their digits."""
    return _SCRIPT.format(seed=seed)


STUDIES = Studies(
    "federated_count", demos={"federated-count": Demo("federated_count.studies:counting", kill="receipt:2")}
)
