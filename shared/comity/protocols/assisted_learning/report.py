"""What a session's rounds came to, and what each provider's help changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from comity.contract import Json
from comity.protocols.assisted_learning.choices import pick_field


@dataclass(frozen=True, slots=True)
class Help:
    """What a provider's training came to in a round.

    Attributes:
        provider: The provider.
        pick: Index, in the trajectory that it was offered, of the checkpoint that it started from.
        loss_before: Global loss of that model.
        loss_after: Global loss of the model of its own trajectory that was picked next.
        test_before: Test accuracy, 0 to 1, or mean return in the first test, of the former at the learner.
        test_after: The same of the latter.
    """

    provider: str
    pick: int
    loss_before: float
    loss_after: float
    test_before: float | None
    test_after: float | None

    @property
    def loss_change(self) -> float:
        """By how much the global loss changed; never above 0."""
        return self.loss_after - self.loss_before

    @property
    def test_change(self) -> float | None:
        """By how much the learner's test changed."""
        if self.test_before is None or self.test_after is None:
            return None
        return self.test_after - self.test_before


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to.

    Attributes:
        provider_pick: Index of the learner's checkpoint that the provider started from; None of several providers.
        learner_pick: Index of the last provider's checkpoint that became θ^r.
        global_loss: f(θ^r; D(L,P)), over all parties.
        global_return: J(θ^r), the mean discounted return of all parties' episodes; None for other tasks.
        test_accuracy: Of θ^r on the learner's test samples, 0 to 1, where it has any.
        test_return: Mean return of θ^r in the first of the learner's tests, where it has games.
        test_returns: The same in each of them, by name.
        screening_work: Forward passes of the learner's evaluation, as a share of a full one.
        seconds: Wall time.
        model: Digest of θ^r, hexadecimal.
        rows_held: Share of the rows of the learner's checkpoints that its leak guard held back; None without one.
        helps: What each provider that trained changed, in the order in which they did.
    """

    provider_pick: int | None
    learner_pick: int
    global_loss: float
    global_return: float | None
    test_accuracy: float | None
    test_return: float | None
    test_returns: Mapping[str, float]
    screening_work: float
    seconds: float
    model: str
    rows_held: float | None
    helps: tuple[Help, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Round:
        """Reads what `to_json` gave."""
        known = {each.name: value[each.name] for each in fields(cls)}
        return cls(**{**known, "helps": tuple(Help(**each) for each in value["helps"])})

    def to_json(self) -> dict[str, Any]:
        """The round as a JSON object, in which every provider's pick has a field of its own."""
        return asdict(self) | {pick_field(each.provider): each.pick for each in self.helps}


_STATED = ("pick", "loss_before", "loss_after", "loss_change", "test_before", "test_after", "test_change")
_ADDED = ("loss_change", "test_change")


def metrics(rounds: Sequence[Round], best: Round, providers: Sequence[str]) -> dict[str, Json]:
    """The session's metrics.

    Args:
        rounds: All rounds.
        best: The one whose model is the session's.
        providers: The providers, as the contract lists them; the lists by provider are in this order.
    """
    if best.global_return is None:
        tested: dict[str, Json] = {
            "assisted": best.test_accuracy,
            "assisted_by_round": [each.test_accuracy for each in rounds],
        }
    else:
        tested = {
            "assisted": best.test_return,
            "assisted_by_round": [each.test_return for each in rounds],
            "test_returns": best.test_returns,
            "global_return_by_round": [each.global_return for each in rounds],
        }
    helps = [
        [next((each for each in one.helps if each.provider == name), None) for name in providers] for one in rounds
    ]
    if len(providers) == 1:
        tested["provider_picks"] = [each.provider_pick for each in rounds]
    return {
        **tested,
        "global_loss_by_round": [each.global_loss for each in rounds],
        "rows_held_by_round": [each.rows_held for each in rounds],
        "learner_picks": [each.learner_pick for each in rounds],
        "providers": [*providers],
        **{f"{name}_by_round": _table(helps, name) for name in _STATED},
        **{name: _sums(helps, name) for name in _ADDED},
    }


def _table(helps: Sequence[Sequence[Help | None]], field: str) -> list[Json]:
    return [[None if each is None else getattr(each, field) for each in row] for row in helps]


def _sums(helps: Sequence[Sequence[Help | None]], field: str) -> list[Json]:
    """A field's sum over all rounds, by provider; None where there is none to add."""
    columns = [[getattr(each, field) for each in column if each is not None] for column in zip(*helps, strict=True)]
    return [sum(column) if column and None not in column else None for column in columns]
