"""Checkpoints under each preset: what the guard and noise cost, and what audits find of what a provider sent."""

from __future__ import annotations

from dataclasses import replace

from comity.experiments.datasets import Samples
from comity.experiments.protection import CLAIMS, Protection, Way, draw, measure, on_samples
from comity.experiments.reproduction import Experiment, ExperimentContext
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocols.assisted_learning.studies import demo
from comity.protocols.assisted_learning.studies.sizes import SMALL


def halves(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The guarded demo's session, on these samples."""
    return validated(Script, on_samples(context, samples, seed, demo.guarded(seed)), "the experiment's script")


def imbalanced(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The paper's session with an imbalanced learner, γ = .3, as its figures have it here."""
    pair = replace(SMALL, data=samples.name, per_class=samples.per_class, test_per_class=samples.test_per_class)
    return replace(pair, seed=seed).script(context.datasets)


_HERE = "comity.protocols.assisted_learning.studies.protection"
_WAYS = (("public", Way("public")), ("guarded", Way("guarded")), ("ε = 3", Way("dp", epsilon=3.0)))
_LOWERED = (
    ("public", Way("public")),
    ("guarded, lowered", Way("guarded", width_factor=0.25, min_distinct=5, max_batch_share=1.0)),
)
_ALL = Samples("digits")
_IMAGES = Samples("mnist", 200, 100)

EXPERIMENTS = (
    Experiment(
        "assisted-learning/protection",
        "What protecting samples costs, and what audits find: two halves, MLP of 64, batches of 256, I = 5",
        {
            "smoke": Protection(_ALL, f"{_HERE}:halves", _WAYS[:1], "assisted"),
            "digits": Protection(_ALL, f"{_HERE}:halves", _WAYS, "assisted", "provider"),
            "small": Protection(_IMAGES, f"{_HERE}:halves", _WAYS, "assisted", "provider"),
            "paper": Protection(Samples("mnist"), f"{_HERE}:halves", _WAYS, "assisted", "provider"),
        },
        "not in the paper",
        measure,
        draw,
        CLAIMS,
    ),
    Experiment(
        "assisted-learning/holding",
        "What holding costs on the paper's main setting, γ = .3, with the owners' limits lowered to what it has",
        {
            "smoke": Protection(Samples("digits", 20), f"{_HERE}:imbalanced", _LOWERED[:1], "assisted"),
            "digits": Protection(Samples("digits", 20), f"{_HERE}:imbalanced", _LOWERED, "assisted", seeds=(0, 1, 2)),
            "small": Protection(
                Samples("mnist", 100, 100), f"{_HERE}:imbalanced", _LOWERED, "assisted", seeds=(0, 1, 2)
            ),
            "paper": Protection(Samples("mnist", 5000), f"{_HERE}:imbalanced", _LOWERED, "assisted", seeds=(0, 1, 2)),
        },
        "20 handwritten digits (scikit-learn) of each class and an mlp of 64; batches of 32; width_factor .25 for 5, min_distinct "
        "5 for 64 and max_batch_share 1 for .75",
        measure,
        draw,
        CLAIMS[1:],
    ),
)
"""What this module runs."""
