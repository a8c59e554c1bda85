"""A session over a line that breaks comes to the same, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.ledger.ledger import bytes_by_kind
from comity.session.contexts import PeerContext
from comity.transport.bindings.in_process import InProcessChannel
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from tests.packages.company import Company, company
from tests.packages.scripts import SCRIPTS

Ending = tuple[list[Any], dict[str, dict[str, int]]]


def ending(of: Company, outcomes: list[Any]) -> Ending:
    """What a session came to, and what crossed at each party."""
    crossed = {
        f"{name} {way}": bytes_by_kind(party.store.entries(), way)
        for name, party in of.parties.items()
        for way in ("sent", "received")
    }
    return [(each.digest, each.metrics) for each in outcomes], crossed


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Ending]:
    """How sessions end in one process, by protocol."""
    found = {}
    for name, text in SCRIPTS.items():
        alone = company(text)
        found[name] = ending(alone, alone.run(lambda own, other, role: InProcessChannel(other, role)))
    return found


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(("upstream", "after"), [(True, 700), (True, 1_500), (False, 700)])
def test_a_session_goes_on_where_its_line_was_cut(
    serve: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    cut: Callable[..., Any],
    undisturbed: dict[str, Ending],
    name: str,
    upstream: bool,
    after: int,
) -> None:
    cloven = company(SCRIPTS[name])
    proxies: dict[str, Any] = {}

    def join(own: PeerContext, other: PeerContext, role: Any) -> RemoteChannel:
        party = other.own.party
        if party not in proxies:
            contexts = next(each for each in cloven.acceptors if other in each)
            host = serve(*((each, role) for each in contexts))
            proxies[party] = cut(host.address, after=after, upstream=upstream)
        identity, contract = Identity(own.own.party), cloven.contract
        return RemoteChannel(connect(proxies[party].address, identity=identity, party=party, contract=contract))

    outcomes = cloven.run(join)
    assert all(len(proxy.passed) > 1 for proxy in proxies.values())
    assert ending(cloven, outcomes) == undisturbed[name]
