"""Small requests are charged once each, in statements about many, whatever is asked again, cut off or restarted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teacher_votes.questions import metered

from comity.errors import MalformedMessage, PeerUnreachable, PolicyRefusal, ReceiptInvalid, TooManyCalls
from comity.ledger.charges import charges_of
from comity.ledger.comparison import compare
from comity.ledger.ledger import loaded
from comity.ledger.numbers import Numbers
from comity.ledger.receipts import SignedStatement
from comity.ledger.verification import verify
from comity.session.metering.answers import AnswerMeter
from comity.session.metering.requests import RequestMeter
from comity.session.metering.tally import Tally
from tests.cases import plain
from tests.company import Company, company

SIZES = (7, 4)


class Two:
    """Who asks and who answers, each of whom may be begun anew from what is kept; and the line between them."""

    def __init__(self) -> None:
        self.of: Company = company(plain("vote_questions").text)
        (self.asks,), (self.answers,) = self.of.initiators[0], self.of.acceptors[0]
        self.metered = metered(self.of.contract)
        self.lost: set[str] = set()
        self.lies: Callable[[Tally], Tally] = lambda tally: tally
        self.restart()

    def restart(self) -> None:
        for name in ("asks", "answers"):
            known = getattr(self, name)
            party = self.of.parties[known.own.party]
            setattr(self, name, party.peer_context(known.place, known.peer))
        self.requests = RequestMeter(self.asks, self.metered)
        self.meter = AnswerMeter(self.answers, self.metered)

    def tally(self) -> Tally:
        return self.lies(self.meter.tally())

    def settle(self, request: SignedStatement) -> SignedStatement:
        if "request" in self.lost:
            raise PeerUnreachable("it was lost on its way")
        receipt = self.meter.settle(request)
        if "receipt" in self.lost:
            raise PeerUnreachable("it was lost on its way back")
        return receipt

    def ask(self, *numbers: int, arrives: bool = True) -> None:
        """Each is answered; the answers arrive, or are lost."""
        self.meter.answer([(number, *SIZES) for number in numbers])
        for number in numbers if arrives else ():
            self.requests.answered(number, *SIZES)

    def charged(self) -> int:
        """What both ledgers say, which agree."""
        ledgers = [loaded(party.store.chains()) for party in self.of.parties.values()]
        assert compare(*ledgers) == []
        (one, other) = ({verify(each).charged.get("request", 0)} for each in ledgers)
        assert one == other
        return one.pop()


@pytest.fixture
def two() -> Two:
    return Two()


def numbered(two: Two, count: int) -> list[int]:
    return [two.requests.number() for _ in range(count)]


def test_many_are_charged_by_one_statement(two: Two) -> None:
    for _ in range(10):
        two.ask(*numbered(two, 20))
    before = [sum(len(each.entries) for each in loaded(party.store.chains())) for party in two.of.parties.values()]
    assert two.requests.settle(two) == 200
    after = [sum(len(each.entries) for each in loaded(party.store.chains())) for party in two.of.parties.values()]
    # A request, a receipt, and what crossed of each kind; what is about to leave was announced before.
    assert [now - then for then, now in zip(before, after, strict=True)] == [5, 5]
    assert max(after) < 12
    (charge,) = charges_of(two.of.parties["clinic"].store.entries())
    assert str(charge.units) == "requests 1 to 200"
    assert two.charged() == two.requests.charged == two.meter.answered == 200
    sent = {each.fact.kind: each.fact.size for each in two.of.parties["clinic"].store.entries() if each.fact.size}
    assert sent == {"vote": 200 * SIZES[1]}


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
def test_what_is_asked_again_is_charged_once(two: Two, arrives: bool, restarted: bool) -> None:
    numbers = numbered(two, 5)
    two.ask(*numbers, arrives=arrives)
    if restarted:
        two.restart()
    two.ask(*numbers[2:], *numbered(two, 1))
    assert two.requests.settle(two) == 6
    two.ask(*numbers)
    assert two.requests.settle(two) == 0
    assert two.charged() == 6


@pytest.mark.parametrize("lost", ["request", "receipt"])
@pytest.mark.parametrize("restarted", [True, False])
def test_a_settlement_that_is_cut_goes_on(two: Two, lost: str, restarted: bool) -> None:
    two.ask(*numbered(two, 5))
    two.lost = {lost}
    with pytest.raises(PeerUnreachable):
        two.requests.settle(two)
    two.lost = set()
    if restarted:
        two.restart()
    two.ask(*numbered(two, 3))
    assert two.requests.settle(two) == 8
    assert [str(each.units) for each in charges_of(two.of.parties["hospital"].store.entries())] == [
        "requests 1 to 5",
        "requests 6 to 8",
    ]
    assert two.charged() == 8


def test_what_is_not_answered_is_not_charged(two: Two) -> None:
    numbers = numbered(two, 10)
    two.ask(*numbers[:2], *numbers[5:7])
    assert two.requests.settle(two) == 4
    two.ask(numbers[3])
    assert two.requests.settle(two) == 1
    assert two.charged() == 5


def test_a_number_is_never_given_twice(two: Two) -> None:
    given = numbered(two, 3)
    two.restart()
    assert not set(given) & set(numbered(two, 1100))


def test_what_was_bought_bounds_what_is_answered(two: Two) -> None:
    two.metered = replace(two.metered, bought=4, credit=3)
    two.restart()
    numbers = numbered(two, 6)
    two.ask(*numbers[:3])
    with pytest.raises(TooManyCalls, match="at most 3 answers without a signed request"):
        two.meter.require_open(numbers[3])
    # What was answered before is answered again for nothing.
    two.meter.require_open(numbers[0])
    two.requests.settle(two)
    two.meter.require_open(numbers[3])
    two.ask(numbers[3])
    with pytest.raises(PolicyRefusal, match="every request that was bought is answered: expected at most 4"):
        two.meter.require_open(numbers[4])
    with pytest.raises(MalformedMessage, match="has no number"):
        two.meter.require_open(0)


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        (lambda tally: replace(tally, numbers=Numbers([(1, 900)])), "is for numbers that were not asked"),
        (lambda tally: replace(tally, asked=tally.asked + 1), "says other sizes"),
        (lambda tally: replace(tally, first=1), "has another first unit"),
        (lambda tally: replace(tally, numbers=Numbers([(1, 3)])), "is for numbers that are charged"),
    ],
)
def test_a_tally_that_asks_too_much_is_not_signed(two: Two, lie: Any, what: str) -> None:
    two.ask(*numbered(two, 3))
    two.requests.settle(two)
    two.ask(*numbered(two, 2))
    two.lies = lie
    with pytest.raises(ReceiptInvalid, match=what):
        two.requests.settle(two)
    assert two.charged() == 3
    two.lies = lambda tally: tally
    assert two.requests.settle(two) == 2


def test_a_request_for_something_else_gets_no_receipt(two: Two) -> None:
    two.ask(*numbered(two, 3))
    tally = two.meter.tally()
    for wrong in (replace(tally, numbers=Numbers([(1, 2)])), replace(tally, asked=0)):
        book = two.of.parties["clinic"].peer_context(two.asks.place, two.asks.peer).receipt_book
        signer = two.of.parties["clinic"].signer
        units = wrong.units("request")
        session = two.of.contract.session
        head = two.of.parties["clinic"].store.head(session, "hospital")
        request = signer.state("request", session, two.of.contract.hash, units, wrong.subject.hex(), head)
        assert book.made("request", units) is None
        with pytest.raises(ReceiptInvalid):
            two.meter.settle(request)
    assert two.requests.settle(two) == 3


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), max_size=20))
def test_numbers_are_a_set(added: list[tuple[int, int]]) -> None:
    numbers, expected = Numbers(), set[int]()
    for first, count in added:
        numbers.add(first, count)
        expected |= set(range(first, first + count))
    assert list(numbers) == sorted(expected)
    assert len(numbers) == len(expected)
    assert all((each in numbers) is (each in expected) for each in range(72))
    assert all(after[0] > before[1] + 1 for before, after in zip(numbers.ranges, numbers.ranges[1:], strict=False))
    assert Numbers.received(numbers.ranges) == numbers
    assert not numbers.overlaps(Numbers([(100, 110)]))
    assert all(numbers.overlaps(Numbers.of([each])) for each in expected)


@pytest.mark.parametrize("ranges", [[(0, 1)], [(2, 1)], [(3, 4), (4, 5)], [(5, 6), (1, 2)], [(1,)]])
def test_ranges_that_are_none_are_refused(ranges: Any) -> None:
    with pytest.raises(MalformedMessage, match="ranges of numbers cannot be used"):
        Numbers.received(ranges)


def test_numbers_in_a_row_are_nobody_elses(two: Two) -> None:
    first = two.requests.number(5)
    assert two.requests.number() == first + 5
    far = two.requests.number(3000)
    assert far == first + 6
    assert two.requests.number() == far + 3000
    two.restart()
    assert two.requests.number() > far + 3000


def test_what_is_answered_and_not_settled_is_counted(two: Two) -> None:
    two.ask(*numbered(two, 3))
    assert two.requests.unsettled == 3
    two.requests.settle(two)
    assert (two.requests.unsettled, two.requests.charged) == (0, 3)
