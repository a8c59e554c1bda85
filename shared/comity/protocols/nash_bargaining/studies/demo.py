"""The demo's session: a learner with few digits, and three providers, of whom one does harm."""

from __future__ import annotations

PERMUTED = (3, 7, 0, 5, 9, 1, 8, 2, 6, 4)
"""What the harmful provider's labels went through; no two digits change places."""
PARITY = tuple(digit % 2 for digit in range(10))
"""The related task: whether a digit is odd."""

_SESSION = """\
# A learner with about 80 handwritten digits, and three providers with some 320 each: one with the learner's task, one that
# knows whether a digit is odd, and one {third}.
# Run it in one process with: comity simulate SCRIPT

[session]
protocol = "nash_bargaining"
id = "demo-{seed}"
acceptors = ["same", "related", "{name}"]
rounds = {rounds}
seed = {seed}

[session.model]
name = "mlp"
options = {{ hidden = {hidden}, hidden_layers = 2 }}{width}

[session.terms]
batch_size = {batch}
local_steps = {steps}          # what crosses is the sum of their gradients
local_learning_rate = 0.1
learning_rate = {rate}     # length of the learner's step; it falls to 0 as half a cosine
main_power = 0.25        # the learner's own, which stays; the providers share the rest
power_every = {every}          # rounds between two updates of their powers
power_rate = {speed}
power_floor = 0.001
clip_norm = 10.0

[simulation]
baselines = true
threads = 1              # of tensor operations, on which the last digits depend

[party.learner]
role = "learner"
secret = "learner-{seed}"
# Its model goes to providers of its own choice: it has too few samples for each unit to be guarded.
privacy = {{ preset = "public" }}

[party.learner.data]
source = "digits"
seed = {seed}
partition = {{ name = "uniform", parties = 17, index = 0, seed = {seed} }}
"""
_PROVIDER = """
[party.{name}]
role = "provider"
secret = "{name}-{seed}"
privacy = {{ preset = "{preset}" }}

[party.{name}.data]
source = "digits"
seed = {seed}
partition = {{ name = "uniform", parties = 4, index = {index}, seed = {seed} }}
"""


def script(seed: int, *, public: bool = False, honest: bool = False) -> str:
    """The demo's script for a seed.

    Args:
        seed: Of data, weights and batches.
        public: Whether nothing is held back, and each step crosses.
        honest: Whether the third provider is honest as well.
    """
    name = "honest" if honest else "harmful"
    sizes = (
        {"rounds": 600, "hidden": 64, "width": "", "batch": 32, "steps": 1, "rate": 0.1, "every": 5, "speed": 0.5}
        if public
        else {
            "rounds": 150,
            "hidden": 40,
            "width": "  # five samples or more for each unit, as a guarded provider wants it",
            "batch": 64,
            "steps": 6,
            "rate": 0.25,
            "every": 1,
            # A greater one brings the related provider to the floor, too, in some seeds.
            "speed": 0.2,
        }
    )
    text = _SESSION.format(
        seed=seed,
        name=name,
        third="more with the learner's task" if honest else "that claims the learner's task, and permutes its labels",
        **sizes,
    )
    preset = "public" if public else "guarded"
    for index, (party, labels) in enumerate((("same", None), ("related", PARITY), (name, PERMUTED)), start=1):
        text += _PROVIDER.format(name=party, seed=seed, index=index, preset=preset)
        if labels is not None and party != "honest":
            text += f"relabel = {[*labels]}\n"
    return text
