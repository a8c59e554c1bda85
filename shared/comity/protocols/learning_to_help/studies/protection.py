"""A rejector and a client's model: what the guard costs, and what audits find of what each side sent."""

from __future__ import annotations

from comity.experiments.datasets import Samples
from comity.experiments.protection import CLAIMS, TELLS, Protection, Way, draw, measure, on_samples
from comity.experiments.reproduction import Experiment, ExperimentContext
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocols.learning_to_help.studies import demo


def session(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The demo's session, on these samples."""
    fields = on_samples(context, samples, seed, demo.script(seed))
    # Every test sample may be asked about.
    fields["session"]["terms"]["requests"] = 2000
    return validated(Script, fields, "the experiment's script")


_HERE = "comity.protocols.learning_to_help.studies.protection"
_WAYS = (("public", Way("public")), ("guarded", Way("guarded")))
_ALL, _IMAGES, _MNIST = Samples("digits"), Samples("mnist", 200, 100), Samples("mnist")

EXPERIMENTS = (
    Experiment(
        "learning-to-help/protection",
        "What guarding a rejector costs, and what audits find of what a server sent: the demo's parties",
        {
            "smoke": Protection(_ALL, f"{_HERE}:session", _WAYS[:1], "accuracy"),
            "digits": Protection(_ALL, f"{_HERE}:session", _WAYS, "accuracy", "server"),
            "small": Protection(_IMAGES, f"{_HERE}:session", _WAYS, "accuracy", "server"),
            "paper": Protection(_MNIST, f"{_HERE}:session", _WAYS, "accuracy", "server"),
        },
        "not in the paper",
        measure,
        draw,
        CLAIMS,
    ),
    Experiment(
        "learning-to-help/local-model",
        "What audits find of the model that a client sent, which nothing judges: the demo's parties",
        {
            "smoke": Protection(_ALL, f"{_HERE}:session", _WAYS[:1], "accuracy"),
            "digits": Protection(_ALL, f"{_HERE}:session", _WAYS[:1], "accuracy", "client"),
            "small": Protection(_IMAGES, f"{_HERE}:session", _WAYS[:1], "accuracy", "client"),
            "paper": Protection(_MNIST, f"{_HERE}:session", _WAYS[:1], "accuracy", "client"),
        },
        "not in the paper",
        measure,
        draw,
        TELLS,
    ),
)
"""What this module runs."""
