"""Updates under each preset: what the guard and noise cost, and what audits find of what a client sent."""

from __future__ import annotations

from dataclasses import replace

from comity.experiments.datasets import Samples
from comity.experiments.protection import CLAIMS, Protection, Way, draw, measure, on_samples
from comity.experiments.reproduction import Experiment, ExperimentContext
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocols.gradient_rewards.studies import demo
from comity.protocols.gradient_rewards.studies.sizes import DIGITS, SMALL


def shares(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The demo's session, on these samples."""
    fields = on_samples(context, samples, seed, demo.script(seed))
    fields["session"]["rounds"] = 50
    return validated(Script, fields, "the experiment's script")


def few(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The same for three rounds."""
    script = shares(context, samples, seed)
    return script.model_copy(update={"session": script.session.model_copy(update={"rounds": 3})})


def equal(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The paper's session with equal shares, as its figures have it here."""
    base = DIGITS if samples.name == "digits" else SMALL
    return replace(base, test_per_class=samples.test_per_class, seed=seed).script(context.datasets)


_HERE = "comity.protocols.gradient_rewards.studies.protection"
_WAYS = (("public", Way("public")), ("guarded", Way("guarded")), ("ε = 8", Way("dp", epsilon=8.0)))
_LOWERED = (
    ("public", Way("public")),
    ("guarded, lowered", Way("guarded", width_factor=0.5, min_distinct=20)),
)
_ALL = Samples("digits")
_IMAGES = Samples("mnist", 200, 100)

EXPERIMENTS = (
    Experiment(
        "gradient-rewards/protection",
        "What protecting samples costs, and what audits find: the demo's five clients, MLP of 32, 50 rounds",
        {
            "smoke": Protection(_ALL, f"{_HERE}:few", _WAYS[:1], "together_mean"),
            "digits": Protection(_ALL, f"{_HERE}:shares", _WAYS, "together_mean", "client-5"),
            "small": Protection(_IMAGES, f"{_HERE}:shares", _WAYS, "together_mean", "client-5"),
            "paper": Protection(Samples("mnist"), f"{_HERE}:shares", _WAYS, "together_mean", "client-5"),
        },
        "not in the paper",
        measure,
        draw,
        CLAIMS,
    ),
    Experiment(
        "gradient-rewards/holding",
        "What holding costs on the paper's main setting, equal shares, with the owners' limits lowered to what it has",
        {
            "smoke": Protection(Samples("digits"), f"{_HERE}:equal", _LOWERED[:1], "together_mean"),
            "digits": Protection(Samples("digits"), f"{_HERE}:equal", _LOWERED, "together_mean", seeds=(0, 1, 2)),
            "small": Protection(Samples("mnist", None, 100), f"{_HERE}:equal", _LOWERED, "together_mean"),
            "paper": Protection(Samples("mnist"), f"{_HERE}:equal", _LOWERED, "together_mean", seeds=(0, 1, 2)),
        },
        "five clients with 60 handwritten digits (scikit-learn) and an mlp of 64; width_factor .5 for 5 and min_distinct 20 "
        "for 64",
        measure,
        draw,
        CLAIMS[1:],
    ),
)
"""What this module runs."""
