"""When a session ends well before all rounds that were bought: its goal is reached, or nothing is gained any more.

What is not run is not charged. The decision is made at one party, by what its rounds say, and made again from its journal
after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from comity.contract import Contract, Json, Terms, Text
from comity.errors import InvalidValue
from comity.session.events import Event
from comity.tasks.scores import METRICS, Metric, has_number, metric, score_of

_TEST = "test_"


@dataclass(frozen=True, slots=True)
class RoundProgress:
    """What a round came to, as far as it decides whether another follows.

    Attributes:
        tested: What a test of the deciding party says of the round's model, by metric; empty where it has none.
        gained: Whether the round made the model better; None where the test's score is to tell.
    """

    tested: Mapping[str, Json]
    gained: bool | None = None


class StoppingTerms(Terms):
    """Terms of protocols whose sessions may end before all rounds that were bought.

    Attributes:
        stop_when_stalled: After how many rounds in a row in which nothing was gained the session ends; 0 for never.
        target: The number of the deciding party's test with which it ends; None for none.
        target_metric: Which number of the test that is; empty for the one that models are compared by.
    """

    stop_when_stalled: Annotated[int, Field(ge=0, le=10_000)] = 0
    target: float | None = None
    target_metric: Text = ""

    def target_of(self, kind: str) -> Metric:
        """The number of a test that the target is of, in tasks of a kind."""
        return metric(self.target_metric) if self.target_metric else score_of(kind)

    def reason_to_stop(self, contract: Contract, rounds: Sequence[RoundProgress]) -> str | None:
        """Why no more rounds follow; None where they do, or where there are none left.

        Args:
            contract: The session's contract.
            rounds: The rounds until now.
        """
        if not rounds or len(rounds) >= contract.rounds:
            return None
        said = self._reached(contract.task.kind, rounds[-1]) or self._stalled(contract.task.kind, rounds)
        return said and f"{said}: the session ends after {len(rounds)} of {contract.rounds} rounds"

    def _reached(self, kind: str, last: RoundProgress) -> str | None:
        wanted = self.target_of(kind)
        value = _number(last.tested, wanted)
        if self.target is None or value is None:
            return None
        reached = value <= self.target if wanted.falls else value >= self.target
        return f"{wanted.title} {value:.4g} reaches the target of {self.target:g}" if reached else None

    def _stalled(self, kind: str, rounds: Sequence[RoundProgress]) -> str | None:
        most = self.stop_when_stalled
        if not most or len(rounds) < most or any(each for each in _gains(kind, rounds)[-most:]):
            return None
        return f"nothing was gained in {most} rounds in a row" if most > 1 else "nothing was gained"


def tests_of(round: Mapping[str, Json]) -> dict[str, Json]:
    """What a test says of a round, from the round's fields, which have `test_` before each number's name."""
    return {name.removeprefix(_TEST): value for name, value in round.items() if name.startswith(_TEST)}


def ended_early(round: int, why: str) -> Event:
    """The event that says why no more rounds follow."""
    return Event("ended-early", round, {"what": why})


def require_usable_target(terms: Terms, kind: str) -> None:
    """Checks that a test of tasks of a kind can have the number that terms name as their target.

    Raises:
        InvalidValue: It cannot.
    """
    if not isinstance(terms, StoppingTerms) or not terms.target_metric:
        return
    if has_number(kind, terms.target_metric):
        return
    raise InvalidValue(
        f"session.terms.target_metric is no single number of a test for {kind}",
        expected=", ".join(name for name in METRICS if has_number(kind, name))
        + (", HEAD.NUMBER" * (kind == "several")),
        received=terms.target_metric,
        action=f"leave it out for {score_of(kind).name}, or name one of these",
    )


def _gains(kind: str, rounds: Sequence[RoundProgress]) -> list[bool]:
    """Whether each round gained something: as it says itself, or because its score is better than all before it."""
    wanted = score_of(kind)
    best: float | None = None
    gains = []
    for each in rounds:
        value = _number(each.tested, wanted)
        signed = None if value is None else -value if wanted.falls else value
        better = signed is None or best is None or signed > best
        if signed is not None and better:
            best = signed
        gains.append(better if each.gained is None else each.gained)
    return gains


def _number(tested: Mapping[str, Json], wanted: Metric) -> float | None:
    value = tested.get(wanted.name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
