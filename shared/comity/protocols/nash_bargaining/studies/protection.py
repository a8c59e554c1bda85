"""Gradients under each preset: what the guard costs, and what audits find of what a provider sent."""

from __future__ import annotations

from comity.experiments.datasets import Samples
from comity.experiments.protection import CLAIMS, Protection, Way, draw, measure
from comity.experiments.reproduction import Experiment, ExperimentContext
from comity.node.sessions.script import Script, parse_script
from comity.protocols.nash_bargaining.studies import demo

_LEARNER = "learner"


def session(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The demo's session."""
    del context, samples
    return parse_script(demo.script(seed))


def few(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The same for three rounds."""
    script = session(context, samples, seed)
    return script.model_copy(update={"session": script.session.model_copy(update={"rounds": 3})})


_HERE = "comity.protocols.nash_bargaining.studies.protection"
_DIGITS = Samples("digits")
_WAYS = (("public", Way("public")), ("guarded", Way("guarded")))
_WHOLE = Protection(_DIGITS, f"{_HERE}:session", _WAYS, "accuracy_bargained", "same", kept=(_LEARNER,))

EXPERIMENTS = (
    Experiment(
        "nash-bargaining/protection",
        "What protecting samples costs, and what an audit finds of what a provider sent: the demo's parties, MLP of 40",
        {
            "smoke": Protection(_DIGITS, f"{_HERE}:few", _WAYS[:1], "accuracy_bargained", kept=(_LEARNER,)),
            "digits": _WHOLE,
            "paper": _WHOLE,
        },
        "not in the paper",
        measure,
        draw,
        CLAIMS,
    ),
)
"""What this module runs."""
