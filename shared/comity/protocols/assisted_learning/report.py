"""What a session's rounds came to, and what each provider's help changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from comity.contract import Contract, Json
from comity.protocols.assisted_learning.choices import pick_field
from comity.tasks.scores import score_of


@dataclass(frozen=True, slots=True)
class Help:
    """What a provider's training came to in a round.

    Attributes:
        provider: The provider.
        pick: Index, in the trajectory that it was offered, of the checkpoint that it started from.
        loss_before: Global loss of that model.
        loss_after: Global loss of the model of its own trajectory that was picked next.
        test_before: The score of the former in the learner's test: accuracy, return, or what else its kind of task has.
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
        tested: What the learner's test says of θ^r, by metric; empty where it has none.
        screening_work: Forward passes of the learner's evaluation, as a share of a full one.
        seconds: Wall time.
        model: Digest of θ^r, hexadecimal.
        rows_held: Share of the rows of the learner's checkpoints that its leak guard held back; None without one.
        helps: What each provider that trained changed, in the order in which they did.
        worsened: Where each party kept the model that the round began with, those whose training ended with a greater loss
            of their own than it began with, as far as they said; None where a party chose another.
    """

    provider_pick: int | None
    learner_pick: int
    global_loss: float
    global_return: float | None
    tested: Mapping[str, Json]
    screening_work: float
    seconds: float
    model: str
    rows_held: float | None
    helps: tuple[Help, ...]
    worsened: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Round:
        """Reads what `to_json` gave."""
        known = {each.name: value[each.name] for each in fields(cls)}
        worsened = None if known["worsened"] is None else tuple(known["worsened"])
        return cls(**{**known, "helps": tuple(Help(**each) for each in value["helps"]), "worsened": worsened})

    def to_json(self) -> dict[str, Any]:
        """The round as a JSON object, in which every provider's pick has a field of its own, and so have a test's numbers."""
        picks = {pick_field(each.provider): each.pick for each in self.helps}
        return asdict(self) | picks | {f"test_{name}": value for name, value in self.tested.items()}


_STATED = ("pick", "loss_before", "loss_after", "loss_change", "test_before", "test_after", "test_change")
_ADDED = ("loss_change", "test_change")


def metrics(rounds: Sequence[Round], best: Round, providers: Sequence[str], score: str) -> dict[str, Json]:
    """The session's metrics.

    Args:
        rounds: All rounds.
        best: The one whose model is the session's.
        providers: The providers, as the contract lists them; the lists by provider are in this order.
        score: The number of a test that models are compared by.
    """
    tested: dict[str, Json] = {
        "score": score,
        "assisted": best.tested.get(score),
        "assisted_by_round": [each.tested.get(score) for each in rounds],
    }
    if best.global_return is not None:
        tested["test_returns"] = best.tested.get("returns", {})
        tested["global_return_by_round"] = [each.global_return for each in rounds]
    elif best.tested:
        tested["tested"] = {"assisted": {**best.tested}}
        tested["tested_by_round"] = [{**each.tested} for each in rounds]
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
        "share_by_round": [_shares(row) for row in helps],
        **{name: _sums(helps, name) for name in _ADDED},
    }


def _table(helps: Sequence[Sequence[Help | None]], field: str) -> list[Json]:
    return [[None if each is None else getattr(each, field) for each in row] for row in helps]


def _shares(row: Sequence[Help | None]) -> list[Json]:
    """Each provider's share, of 1, of what the global loss fell by; 0 where it did not fall, None where one did not train."""
    falls = [None if each is None else max(0.0, -each.loss_change) for each in row]
    whole = sum(each or 0.0 for each in falls) or 1.0
    return [None if each is None else each / whole for each in falls]


def _sums(helps: Sequence[Sequence[Help | None]], field: str) -> list[Json]:
    """A field's sum over all rounds, by provider; None where there is none to add."""
    columns = [[getattr(each, field) for each in column if each is not None] for column in zip(*helps, strict=True)]
    return [sum(column) if column and None not in column else None for column in columns]


def so_far(contract: Contract, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The learner's metrics while the session goes on."""
    known = [Round.from_json(each) for each in rounds]
    best = min(known, key=lambda each: each.global_loss)
    return metrics(known, best, contract.acceptors, score_of(contract.task.kind).name)
