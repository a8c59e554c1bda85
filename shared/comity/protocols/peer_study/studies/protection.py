"""Models of labelled samples under each preset: what the guard and noise cost, and what audits find of what a client sent."""

from __future__ import annotations

from typing import Any

from comity.experiments.datasets import Samples
from comity.experiments.protection import CLAIMS, TELLS, Protection, Way, draw, measure, on_samples
from comity.experiments.reproduction import Experiment, ExperimentContext
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocols.peer_study.studies import demo


def few_labels(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The demo's session, which begins with ten labels, on these samples."""
    return validated(Script, on_samples(context, samples, seed, demo.script(seed)), "the experiment's script")


def many_labels(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The same with as many labels from the beginning as a guarded client wants behind each unit, and one choice of more."""
    fields: dict[str, Any] = on_samples(context, samples, seed, demo.script(seed))
    fields["session"] |= {"rounds": 8}
    fields["session"]["terms"] |= {"initial": 400, "budget": 40}
    for party in fields["party"].values():
        if "splits" in party["data"]:
            party["data"]["splits"] = {"pool": {"share": 0.985, "protected": 0.2}}
    return validated(Script, fields, "the experiment's script")


def short(context: ExperimentContext, samples: Samples, seed: int) -> Script:
    """The demo's session for two rounds."""
    script = few_labels(context, samples, seed)
    return script.model_copy(update={"session": script.session.model_copy(update={"rounds": 2})})


_HERE = "comity.protocols.peer_study.studies.protection"
_SCORE, _CLIENT = "server_score", "client-1"
_WAYS = (("public", Way("public")), ("guarded", Way("guarded")), ("ε = 8", Way("dp", epsilon=8.0)))
_ALL, _IMAGES, _MNIST = Samples("digits"), Samples("mnist", 200, 100), Samples("mnist")

EXPERIMENTS = (
    Experiment(
        "peer-study/protection",
        "What protecting samples costs, and what audits find: two clients who begin with 400 labels, MLP of 64, 8 rounds",
        {
            "smoke": Protection(_ALL, f"{_HERE}:short", _WAYS[:1], _SCORE),
            "digits": Protection(_ALL, f"{_HERE}:many_labels", _WAYS, _SCORE, _CLIENT),
            "small": Protection(_IMAGES, f"{_HERE}:many_labels", _WAYS, _SCORE, _CLIENT),
            "paper": Protection(_MNIST, f"{_HERE}:many_labels", _WAYS, _SCORE, _CLIENT),
        },
        "not in the paper",
        measure,
        draw,
        CLAIMS,
    ),
    Experiment(
        "peer-study/few-labels",
        "What audits find where few samples are behind a model, as in the demo: ten labels, and ten more four times",
        {
            "smoke": Protection(_ALL, f"{_HERE}:short", _WAYS[:1], _SCORE),
            "digits": Protection(_ALL, f"{_HERE}:few_labels", _WAYS[:1], _SCORE, _CLIENT),
            "small": Protection(_IMAGES, f"{_HERE}:few_labels", _WAYS[:1], _SCORE, _CLIENT),
            "paper": Protection(_MNIST, f"{_HERE}:few_labels", _WAYS[:1], _SCORE, _CLIENT),
        },
        "not in the paper",
        measure,
        draw,
        TELLS,
    ),
)
"""What this module runs."""
