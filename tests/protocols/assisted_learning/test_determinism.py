"""A script decides its outcome: the same one again ends in the same model."""

from __future__ import annotations

from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate

SCRIPT = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital"]
rounds = 2
seed = {seed}
model = {{ name = "mlp", options = {{ hidden = 8 }} }}
terms = {{ learning_rate = 0.01, batch_size = 16, iterations = 40, sampling_period = 5, evaluation_batch_size = 32 }}

[party.clinic]
role = "learner"
secret = "{secret}"
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "learner" }} }}

[party.hospital]
role = "provider"
data = {{ source = "digits", per_class = 20, partition = {{ name = "imbalance", gamma = 0.3, share = "provider" }} }}
"""


def result(*, seed: int = 0, secret: str = "clinic") -> SessionResult:
    return simulate(parse_script(SCRIPT.format(seed=seed, secret=secret)))[0]


def test_the_same_script_ends_in_the_same_digest() -> None:
    first, second = result(), result()
    assert first.digest == second.digest
    assert first.metrics == second.metrics
    assert first.bytes_sent == second.bytes_sent
    assert first.ledger_verified


def test_another_seed_or_secret_ends_in_another() -> None:
    assert len({result().digest, result(seed=1).digest, result(secret="other").digest}) == 3
