"""Parties of a package's sessions that lie: each lie is refused in a line, and the session is as it was."""

from __future__ import annotations

from typing import Any

import pytest
from teacher_votes.teaching import requests_of, subject

from comity.errors import MalformedMessage, ReceiptInvalid, RoundOutOfOrder
from comity.ledger.ledger import Units
from comity.session.receipt_book import ReceiptBook
from tests.cases import plain
from tests.company import Company, company

FULL = [0] * 8


@pytest.fixture
def pool() -> Company:
    return company(plain("vote_pool").text)


def cast(pool: Company, votes: list[int], request: Any, round: int = 1, client: int = 0) -> Any:
    """What the server says to a client's votes."""
    return pool.roles[0].cast(pool.initiators[client][0].own.party, round, votes, request)


def signed(pool: Company, units: Units, client: int = 0) -> Any:
    """A client's request for some units."""
    own = pool.initiators[client][0]
    # A book that knows of no earlier statement, as a liar's.
    book = ReceiptBook(pool.parties[own.own.party].signer, pool.parties[own.own.party].store, own.contract, own.peer)
    return book.sign("request", units, subject(pool.contract, 1))


@pytest.mark.parametrize("votes", [[], FULL[:7], [*FULL, 0], [*FULL[:7], 10], [10**9] * 8, [0] * 100_000], ids=len)
def test_votes_that_do_not_fit_are_refused(pool: Company, votes: list[int]) -> None:
    request = signed(pool, requests_of(pool.contract, 1))
    with pytest.raises(MalformedMessage, match="do not fit") as refused:
        cast(pool, votes, request)
    assert len(str(refused.value)) < 500
    receipt = cast(pool, FULL, request)
    assert cast(pool, FULL, request) == receipt


@pytest.mark.parametrize(
    "units",
    [
        Units("request", 1, 16),
        Units("request", 2, 8),
        Units("request", 9, 8),
        Units("request", 1, 2**63),
        Units("request", 2**63, 2**63),
        Units("round", 1, 8),
    ],
    ids=str,
)
def test_a_charge_for_other_units_is_refused(pool: Company, units: Units) -> None:
    with pytest.raises(ReceiptInvalid, match="states another range of units"):
        cast(pool, FULL, signed(pool, units))


@pytest.mark.parametrize("round", [0, 2, 2**32 - 1])
def test_a_round_that_is_not_open_is_refused(pool: Company, round: int) -> None:
    with pytest.raises((RoundOutOfOrder, ReceiptInvalid)):
        cast(pool, FULL, signed(pool, requests_of(pool.contract, 1)), round)


@pytest.mark.parametrize("other", [1, 2])
def test_nobody_asks_in_anothers_name(pool: Company, other: int) -> None:
    with pytest.raises(ReceiptInvalid, match="states another party"):
        cast(pool, FULL, signed(pool, requests_of(pool.contract, 1), other))


def test_a_teacher_answers_for_itself() -> None:
    """The student takes no teacher's receipt for another's."""
    school = company(plain("teacher_votes").text)
    units, about = requests_of(school.contract, 1), subject(school.contract, 1)
    first, second = school.initiators[0][:2]
    theirs = school.acceptors[1][0].receipt_book
    for context, book in ((first, school.acceptors[0][0].receipt_book), (second, theirs)):
        book.accept(context.receipt_book.sign("request", units, about), "request", units, about)
    receipt = theirs.sign("receipt", units, about)
    with pytest.raises(ReceiptInvalid, match="states another party"):
        first.receipt_book.accept(receipt, "receipt", units, about)
    second.receipt_book.accept(receipt, "receipt", units, about)
