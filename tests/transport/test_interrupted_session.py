"""A session over a line that breaks ends in the same model, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.protocols.assisted_learning import PROTOCOL
from comity.session.ledger import bytes_by_kind
from comity.transport.link import Link
from comity.transport.protocol import run


def crossed(pair: Any) -> list[dict[str, int]]:
    entries = list(pair.learner_store.entries()), list(pair.provider_store.entries())
    return [bytes_by_kind(each, direction) for each in entries for direction in ("sent", "received")]


@pytest.fixture(scope="module")
def undisturbed(make_pair: Callable[..., Any]) -> tuple[str, list[dict[str, int]]]:
    pair = make_pair()
    helping = PROTOCOL.help(pair.provider.place, [pair.provider])
    digest = run(PROTOCOL.ask_in_process([(pair.learner, pair.provider, helping)]))[0].digest
    return digest, crossed(pair)


@pytest.mark.parametrize(
    ("upstream", "after"),
    [(True, 3_000), (True, 15_000), (False, 20_000)],
)
def test_a_session_goes_on_where_its_line_was_cut(
    make_pair: Callable[..., Any],
    serve: Callable[..., Any],
    connect: Callable[..., Link],
    cut: Callable[..., Any],
    undisturbed: tuple[str, list[dict[str, int]]],
    upstream: bool,
    after: int,
) -> None:
    pair = make_pair()
    host = serve((pair.provider, PROTOCOL.help(pair.provider.place, [pair.provider])))
    proxy = cut(host.address, after=after, upstream=upstream)
    link = connect(proxy.address, contract=pair.learner.contract)
    (outcome,) = run(PROTOCOL.ask([(pair.learner, link)]))
    assert len(proxy.passed) > 1
    assert (outcome.digest, crossed(pair)) == undisturbed
