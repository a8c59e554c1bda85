"""What the ledgers of a session's parties say of each other: all that was bought was bought once, and both sides say so."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from comity.ledger.charges import charges_of
from comity.ledger.comparison import compare
from comity.ledger.ledger import Chain, Units, loaded
from comity.ledger.verification import verify
from comity.node.sessions.script import Script
from comity.protocol.registry import protocol
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

Charges = Mapping[tuple[str, str], tuple[Units, ...]]
"""Units that were charged, in order, by party and peer."""


def kept(folder: Path) -> tuple[Chain, ...]:
    """The chains in a `state_dir`."""
    with closing(SqlStore(store_url(folder), read_only=True)) as store:
        return tuple(loaded(store.chains()))


def charged_once(script: Script, ledgers: Mapping[str, Iterable[Chain]]) -> Charges:
    """What a session's parties charged.

    Args:
        script: The session.
        ledgers: The chains of each party.

    Raises:
        AssertionError: Two ledgers do not agree, or something was charged twice.
        ComityError: A chain does not hold.
    """
    chains = {party: tuple(ledgers[party]) for party in script.party}
    for each in chains.values():
        verify(each)
    acceptors, unit = script.session.acceptors, protocol(script.session.protocol).unit
    charges = {}
    for initiator, acceptor in itertools.product(script.party.keys() - {*acceptors}, acceptors):
        assert (found := compare(chains[initiator], chains[acceptor])) == [], found
        for own, peer in ((initiator, acceptor), (acceptor, initiator)):
            (chain,) = (each for each in chains[own] if each.name == (script.session.id, peer))
            units = tuple(each.units for each in charges_of(chain.entries))
            assert {each.unit for each in units} <= {unit}
            assert not any(one.overlaps(other) for one, other in itertools.combinations(units, 2)), units
            charges[own, peer] = units
        assert charges[initiator, acceptor] == charges[acceptor, initiator]
    assert any(charges.values()), "nothing was charged"
    return charges
