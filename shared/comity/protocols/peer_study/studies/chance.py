"""What peer study is compared with: the same session, in which chance chooses."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from pydantic import SecretStr

from comity.contract import Json
from comity.node.sessions.script import Script
from comity.simulation.in_process import simulate

SELECTIONS = 4
"""How often chance chooses; what is compared is the mean."""


def added(script: Script, metrics: Mapping[str, Any]) -> dict[str, Json]:
    """The metrics with `accuracy_random`, by labelling step, and the means over all steps of both."""
    curves = [_curve(script, each) for each in range(SELECTIONS)]
    chosen = metrics["accuracy"]
    if None in chosen or any(None in curve for curve in curves):
        return dict(metrics)
    by_chance = [mean(step) for step in zip(*curves, strict=True)]
    return {
        **metrics,
        "accuracy_random": [*by_chance],
        "chosen_mean": mean(chosen),
        "random_mean": mean(by_chance),
    }


def _curve(script: Script, number: int) -> list[Any]:
    """The scores by labelling step where chance chooses from the same pools."""
    terms = script.session.terms | {"selection": "random"}
    session = script.session.model_copy(update={"terms": terms, "id": f"random-{number}"})
    parties = {}
    for name, party in script.party.items():
        known = name if party.secret is None else party.secret.get_secret_value()
        parties[name] = party.model_copy(update={"secret": SecretStr(f"{known}, selection {number}")})
    result, _ = simulate(script.model_copy(update={"session": session, "party": parties}))
    scores: Any = result.metrics["accuracy"]
    return list(scores)
