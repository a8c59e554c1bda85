"""The demo of AssistPG (section 4.3 of the paper): a learner that knows long poles, a provider that knows short ones."""

from __future__ import annotations

_SCRIPT = """\
# A learner balances poles of 4 to 5, a provider poles of up to 1; the tests have poles of up to 5.
# Run it in one process with: comity simulate SCRIPT

[session]
protocol = "assisted_learning"
id = "demo-rl-{seed}"
acceptors = ["provider"]
rounds = 10
seed = {seed}

[session.model]
name = "policy-mlp"
options = {{ hidden = 4 }}

[session.terms]
optimizer = "sgd"
learning_rate = 0.005
batch_size = 32         # episodes of an update
iterations = 20         # of both parties in a round
sampling_period = 4
evaluation_batch_size = 500

[session.terms.policy_gradient]
discount = 0.99
baseline = "mean"
evaluation_episodes = 20        # of each of a party's five games

[simulation]
baselines = true
threads = 1

[party.learner]
role = "learner"
secret = "learner"

[party.learner.data]
source = "gymnasium:CartPole-v1"
parameter = "length"            # Gymnasium's, which is half the pole's
values = {{ name = "uniform", low = 4.0, high = 5.0 }}
games = 5
test_games = 200

[party.learner.data.tests]
test_1 = {{ name = "uniform", low = 0.0, high = 5.0 }}
test_2 = {{ name = "uniform", low = 0.0, high = 1.0, share = 0.8, otherwise = {{ name = "uniform", low = 1.0, high = 5.0 }} }}

[party.provider]
role = "provider"
secret = "provider"

[party.provider.data]
source = "gymnasium:CartPole-v1"
parameter = "length"
values = {{ name = "uniform", low = 0.0, high = 1.0 }}
games = 5
"""


def script(seed: int) -> str:
    """The demo's script for a seed: of the weights and of the episodes; the games are the same."""
    return _SCRIPT.format(seed=seed)
