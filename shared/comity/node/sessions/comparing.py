"""Whether a session was worth it: what the party would have had alone, with the same budget, by the same test."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from comity import interruption
from comity.contract import Contract, Json, Membership
from comity.data import Splits
from comity.environments import EnvironmentSet
from comity.errors import ComityError
from comity.node.party import LocalParty
from comity.protocol.comparing import Alone, Test
from comity.protocol.registry import protocol
from comity.session.events import Event, Observer
from comity.session.outcome import Outcome
from comity.tasks.scores import detail_of, metric, score_of

log = structlog.get_logger()


def compared(
    party: LocalParty, contract: Contract, outcome: Outcome, seconds: float, observe: Observer
) -> dict[str, Json] | None:
    """What a party would have had alone beside what a session came to for it; None where nothing can be said.

    Nothing leaves for that: the training is on the party's own data, and stays here.

    Args:
        party: The party.
        contract: The session's contract.
        outcome: What it came to.
        seconds: How long the session took.
        observe: Is told that it goes on, and where it takes too long.

    Returns:
        `score`, the number that models are compared by, and of it `alone` (the mean over `seeds` trainings, each in
        `alone_by_seed`), `together`, `gain` (above 0 where help made it better) and `spread` (the standard deviation of the
        trainings alone; None of one). `by` has the same for each class or target, and `tested_alone`, `tested_together` all
        that the tests say. `budget` says how long the party was trained alone.
    """
    settings, definition = party.config.compare, protocol(contract.protocol)
    seeds, most_s = settings.seeds, max(settings.at_least_s, settings.share * seconds)
    role = definition.acceptor if party.name in contract.acceptors else definition.initiator
    comparing = definition.load().comparing
    if not seeds or comparing is None or role not in definition.trains:
        return None
    together = comparing.together(outcome.metrics)
    score = score_of(contract.task.kind).name
    if together.get(score) is None:
        return None
    observe(Event("note", 0, {"what": "training this party alone, to say whether help was worth it"}))
    try:
        own, peers = _members(party, contract, role)
        data = party.holdings.data
        splits, games = (data if isinstance(data, kind) else None for kind in (Splits, EnvironmentSet))
        tests = []
        with interruption.at_most(most_s):
            for repeat in range(seeds):
                task = party.task(contract, splits, environments=games)  # type: ignore[arg-type]
                tests.append(comparing.alone(Alone(contract, own, peers, task, outcome.metrics, repeat)))
    except interruption.TookTooLong:
        what = (
            f"not compared: training alone takes longer than {most_s:.0f} s, of {seconds:.0f} s that the session took; "
            "share and at_least_s in [compare] of node.toml let it take longer"
        )
        observe(Event("note", 0, {"what": what}))
        return None
    except ComityError as error:
        # The session went well all the same.
        log.warning("not-compared", session=contract.session, error=str(error))
        return None
    found = said(contract.task.kind, tests, together)
    return None if found is None else {**found, "budget": comparing.budget}


def said(kind: str, alone: Sequence[Test], together: Test) -> dict[str, Json] | None:
    """What several tests of a party alone say, beside what a test says of what it has; None where there is no score."""
    score, detail = score_of(kind), detail_of(kind)
    values = [each for each in (_number(test.get(score.name)) for test in alone) if each is not None]
    has = _number(together.get(score.name))
    if not values or has is None:
        return None
    mean = _mean(alone)
    before = statistics.fmean(values)
    return {
        "score": score.name,
        "seeds": len(values),
        "alone": before,
        "alone_by_seed": [*values],
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "together": has,
        "gain": _gain(score.name, before, has),
        "by": None if detail is None else _by(detail.name, mean, together),
        "tested_alone": mean,
        "tested_together": {**together},
    }


def _by(name: str, alone: Test, together: Test) -> dict[str, Json] | None:
    """What there is for each class or target, of both."""
    before, after = alone.get(name), together.get(name)
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    rows: dict[str, Json] = {}
    for title in after:
        one, other = _number(before.get(title)), _number(after.get(title))
        gain = None if one is None or other is None else _gain(name, one, other)
        rows[title] = {"alone": one, "together": other, "gain": gain}
    return {"metric": name, "rows": rows}


def _gain(name: str, alone: float, together: float) -> float:
    return alone - together if metric(name).falls else together - alone


def _mean(tests: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The mean of several tests, metric by metric, over those that have it."""
    found: dict[str, Json] = {}
    for name in tests[0]:
        values = [test[name] for test in tests if test.get(name) is not None]
        if values and isinstance(values[0], Mapping):
            found[name] = _mean(values)
        else:
            numbers = [each for each in map(_number, values) if each is not None]
            found[name] = statistics.fmean(numbers) if numbers else None
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _members(party: LocalParty, contract: Contract, role: str) -> tuple[Membership, list[Membership]]:
    """The parts in a session, as they were kept when it was entered."""
    kept = party.store.find(contract.session)
    if kept is None:
        return party.membership(role, contract), []
    return Membership.model_validate(kept.own), [Membership.model_validate(each) for each in kept.peers]
