"""The demo's session: handwritten digits, a learner that has few and mostly of one kind, a provider that has some of each."""

from __future__ import annotations

_SCRIPT = """\
# A learner with 37 images, mostly of one digit, is helped by a provider with 100, ten of each.
# Run it in one process with: comity simulate SCRIPT

[session]
protocol = "assisted_learning"
id = "demo-{seed}"
acceptors = ["provider"]
rounds = 10
seed = {seed}

[session.model]
name = "mlp"
options = {{ hidden = 64 }}

[session.terms]
optimizer = "adam"
learning_rate = 0.003
batch_size = 32
iterations = 100        # of both parties in a round, split 27 to 73 like their samples
sampling_period = 5     # every fifth model of a training is a checkpoint
evaluation_batch_size = 32

[simulation]
baselines = true
threads = 1             # of tensor operations, on which the last digits depend

[party.learner]
role = "learner"
secret = "learner-{seed}"       # simulations repeat; a real node makes its own
privacy = {{ preset = "public" }}  # these images are public, and so few hide none of them

[party.learner.data]
source = "digits"
seed = {seed}
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "learner", seed = {seed} }}

[party.provider]
role = "provider"
secret = "provider-{seed}"
privacy = {{ preset = "public" }}

[party.provider.data]
source = "digits"
seed = {seed}
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "provider", seed = {seed} }}
"""


def script(seed: int) -> str:
    """The demo's script for a seed."""
    return _SCRIPT.format(seed=seed)


_GUARDED = """\
# Two parties with half of 1,347 images each; what single images show of a model stays where it is.
# Run it in one process with: comity simulate SCRIPT

[session]
protocol = "assisted_learning"
id = "guarded-{seed}"
acceptors = ["provider"]
rounds = 5
seed = {seed}

[session.model]
name = "mlp"
options = {{ hidden = 64 }}

[session.terms]
optimizer = "adam"
learning_rate = 0.003
batch_size = 256
iterations = 100        # of both parties in a round
sampling_period = 5     # in five batches each party sees 600 of its images, 9 for each of the 64 units
evaluation_batch_size = 256

[simulation]
baselines = true
threads = 1             # of tensor operations, on which the last digits depend

[party.learner]
role = "learner"
secret = "learner-{seed}"       # simulations repeat; a real node makes its own
privacy = {{ preset = "guarded" }}

[party.learner.data]
source = "digits"
seed = {seed}
partition = {{ name = "uniform", parties = 2, index = 0, seed = {seed} }}

[party.provider]
role = "provider"
secret = "provider-{seed}"
privacy = {{ preset = "guarded" }}

[party.provider.data]
source = "digits"
seed = {seed}
partition = {{ name = "uniform", parties = 2, index = 1, seed = {seed} }}
"""


def guarded(seed: int) -> str:
    """The script of the demo with a leak guard, for a seed."""
    return _GUARDED.format(seed=seed)
