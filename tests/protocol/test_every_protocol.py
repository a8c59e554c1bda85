"""What a node's policy and its leak guard hold back is held back in every registered protocol."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from comity.errors import ComityError, PolicyRefusal
from comity.ledger.ledger import Entry, bytes_by_kind
from comity.node.sessions.script import Script
from comity.privacy.settings import PrivacySettings
from comity.simulation.in_process import simulate
from tests.cases import PROTOCOLS, Session, plain, sessions_of, variants
from tests.ledgers import kept


def entries(folder: Path, script: Script, party: str) -> list[Entry]:
    return [entry for chain in kept(folder / party) for entry in chain.entries]


def agreed(case: Session) -> tuple[str, ...]:
    """The kinds of a session's contract."""
    return case.definition.egress_of(case.definition.terms.model_validate(case.script.session.terms))


def sent(folder: Path, script: Script) -> dict[str, set[str]]:
    """The kinds that each party of a session sent."""
    return {name: set(bytes_by_kind(entries(folder, script, name), "sent")) for name in script.party}


@pytest.mark.parametrize(("protocol", "session"), variants())
def test_what_crosses_is_of_the_kinds_that_were_agreed_on(protocol: str, session: str, tmp_path: Path) -> None:
    case = sessions_of(protocol)[session]
    simulate(case.script, state=tmp_path)
    assert set().union(*sent(tmp_path, case.script).values()) == {*agreed(case)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_leaves_of_a_kind_that_a_policy_does_not_name(protocol: str, tmp_path: Path) -> None:
    """Whoever would send it refuses the session; to others it does not matter."""
    case = plain(protocol)
    simulate(case.script, state=tmp_path)
    of = sent(tmp_path, case.script)
    for kind in agreed(case):
        for name in of:
            script = case.script
            party = script.party[name]
            rest = tuple(each for each in agreed(case) if each != kind)
            party.policy = party.policy.model_copy(update={"egress": rest})
            refuses = pytest.raises(PolicyRefusal, match=rf"{name}'s policy\.egress .*{kind}")
            with refuses if kind in of[name] else nullcontext():
                simulate(script)


@pytest.mark.parametrize(("protocol", "session"), variants())
def test_what_is_trained_leaves_when_the_guard_has_seen_it(protocol: str, session: str, tmp_path: Path) -> None:
    """With a guard that more samples have to stand behind than there are, nothing of it leaves."""
    case = sessions_of(protocol)[session]
    judged = case.definition.load().judged
    for strict in (False, True):
        script, folder = case.script, tmp_path / str(strict)
        for party in script.party.values():
            if strict or party.privacy.guards:
                least = 10**6 if strict else party.privacy.min_distinct
                party.privacy = PrivacySettings(preset="guarded", min_distinct=least, width_factor=0)
        with suppress(ComityError):
            simulate(script, state=folder)
        for name, party in script.party.items():
            if party.privacy.guards and (folder / name).exists():
                require_judged(folder, script, name, judged, refuses=strict)


def require_judged(folder: Path, script: Script, name: str, judged: tuple[str, ...], *, refuses: bool) -> None:
    let_go = set()
    for entry in entries(folder, script, name):
        fact = entry.fact
        if fact.matter == "judged" and not fact.body.get("refused"):
            assert not refuses, fact
            let_go.add(fact.subject)
        if fact.matter == "delivered" and fact.direction == "received":
            let_go.add(fact.subject)
        if fact.matter == "intended" and fact.kind in judged:
            assert fact.subject in let_go, fact
