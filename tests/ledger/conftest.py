"""Ledgers in which nothing is wrong."""

from __future__ import annotations

import pytest

from tests.ledger.books import (
    Party,
    Whole,
    make_party,
    play,
)


@pytest.fixture(scope="module")
def parties() -> tuple[Party, Party]:
    initiator, acceptor = make_party("clinic"), make_party("hospital")
    play(initiator, acceptor)
    return initiator, acceptor


@pytest.fixture(scope="module")
def whole(parties: tuple[Party, Party]) -> Whole:
    """The initiator's chain."""
    (chain,) = parties[0].store.chains("s-1")
    return Whole(list(chain.entries), chain.head)
