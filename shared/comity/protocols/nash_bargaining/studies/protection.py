"""Gradients under each preset: what the guard and noise cost, and what audits find of what a provider sent."""

from __future__ import annotations

from dataclasses import replace

from comity.experiments.datasets import Samples
from comity.experiments.protection import CLAIMS, Protection, Way, draw, measure, on_samples
from comity.experiments.reproduction import Experiment, ExperimentContext
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocols.nash_bargaining.studies import demo

_LEARNER = "learner"


def session(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The demo's session, on these samples."""
    return validated(Script, on_samples(context, samples, seed, demo.script(seed)), "the experiment's script")


def few(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The same for three rounds."""
    script = session(context, samples, seed)
    return script.model_copy(update={"session": script.session.model_copy(update={"rounds": 3})})


_HERE = "comity.protocols.nash_bargaining.studies.protection"
_DIGITS, _IMAGES = Samples("digits"), Samples("mnist", 200, 100)
_WAYS = (("public", Way("public")), ("guarded", Way("guarded")), ("ε = 8", Way("dp", epsilon=8.0)))
_WHOLE = Protection(_DIGITS, f"{_HERE}:session", _WAYS, "accuracy_bargained", "same", kept=(_LEARNER,))

EXPERIMENTS = (
    Experiment(
        "nash-bargaining/protection",
        "What protecting samples costs, and what an audit finds of what a provider sent: the demo's parties, MLP of 40",
        {
            "smoke": Protection(_DIGITS, f"{_HERE}:few", _WAYS[:1], "accuracy_bargained", kept=(_LEARNER,)),
            "digits": _WHOLE,
            "small": replace(_WHOLE, samples=_IMAGES),
            "paper": replace(_WHOLE, samples=Samples("mnist")),
        },
        "not in the paper",
        measure,
        draw,
        CLAIMS,
    ),
)
"""What this module runs."""
