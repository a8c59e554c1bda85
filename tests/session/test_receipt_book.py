"""Statements of two parties in one session, by round and by many small units at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from comity.contract import Contract, Membership
from comity.errors import ReceiptInvalid
from comity.ledger.charges import charges_of
from comity.ledger.comparison import compare
from comity.ledger.keys import SeedKey
from comity.ledger.ledger import Units, in_round, loaded
from comity.ledger.receipts import Signer
from comity.ledger.verification import verify
from comity.session.receipt_book import ReceiptBook, record_opening
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets, secrets_in

SUBJECT, OTHER = b"\x01" * 32, b"\x02" * 32


def requests(first: int, count: int) -> Units:
    return Units("request", first, count)


ABOUT = [in_round(1), requests(101, 100)]


@dataclass
class Side:
    """One party, with its store and its book."""

    signer: Signer
    store: MemoryStore
    contract: Contract
    peer: Membership

    def __post_init__(self) -> None:
        self.book = self.opened()

    def opened(self) -> ReceiptBook:
        return ReceiptBook(self.signer, self.store, self.contract, self.peer)


@pytest.fixture
def sides(
    make_contract: Callable[..., Contract],
    make_signer: Callable[[str], Signer],
    make_member: Callable[[str, str, int], Membership],
) -> tuple[Side, Side]:
    contract = make_contract()
    members = make_member("clinic", "student", 10), make_member("hospital", "teacher", 10)
    made = []
    for own, peer in (members, members[::-1]):
        store = MemoryStore()
        record_opening(store, contract, own, peer)
        made.append(Side(make_signer(own.party), store, contract, peer))
    return made[0], made[1]


@pytest.mark.parametrize("units", ABOUT)
def test_a_charge(sides: tuple[Side, Side], units: Units) -> None:
    clinic, hospital = sides
    request = clinic.book.sign("request", units, SUBJECT)
    hospital.book.accept(request, "request", units, SUBJECT)
    clinic.book.accept(hospital.book.sign("receipt", units, SUBJECT), "receipt", units, SUBJECT)
    for side in sides:
        verify(side.store.chains())
        assert [each.units for each in charges_of(side.store.entries())] == [units]
    assert compare(clinic.store.chains(), hospital.store.chains()) == []


@pytest.mark.parametrize("units", ABOUT)
def test_the_same_again_is_the_first_again(sides: tuple[Side, Side], units: Units) -> None:
    clinic, hospital = sides
    request = clinic.book.sign("request", units, SUBJECT)
    hospital.book.accept(request, "request", units, SUBJECT)
    entries = len(clinic.store.entries()), len(hospital.store.entries())
    for book in (clinic.book, clinic.opened()):
        assert book.sign("request", units, SUBJECT) == book.made("request", units) == request
    for book in (hospital.book, hospital.opened()):
        book.accept(request, "request", units, SUBJECT)
    assert (len(clinic.store.entries()), len(hospital.store.entries())) == entries


@pytest.mark.parametrize("units", ABOUT)
def test_something_else_of_the_same_units_is_not_signed(sides: tuple[Side, Side], units: Units) -> None:
    clinic, _ = sides
    clinic.book.sign("request", units, SUBJECT)
    for book in (clinic.book, clinic.opened()):
        with pytest.raises(ReceiptInvalid, match=f"a request of {units} was signed for something else"):
            book.sign("request", units, OTHER)
    # Another kind is another statement.
    clinic.book.sign("acknowledgement", units, OTHER)
    assert clinic.book.made("receipt", units) is None


@pytest.mark.parametrize("units", [requests(200, 1), requests(101, 99), requests(50, 100), requests(1, 500)])
def test_ranges_do_not_overlap(sides: tuple[Side, Side], units: Units) -> None:
    clinic, hospital = sides
    first = requests(101, 100)
    hospital.book.accept(clinic.book.sign("request", first, SUBJECT), "request", first, SUBJECT)
    assert clinic.book.made("request", units) is None
    for book in (clinic.book, clinic.opened()):
        with pytest.raises(ReceiptInvalid, match="was signed for something else: expected requests 101 to 200"):
            book.sign("request", units, SUBJECT)
    forged = clinic.signer.state("request", "s-1", clinic.contract.hash, units, SUBJECT.hex(), clinic.store.head())
    for book in (hospital.book, hospital.opened()):
        with pytest.raises(ReceiptInvalid, match="does not follow clinic's earlier statements"):
            book.accept(forged, "request", units, SUBJECT)


def test_batches_follow_each_other(sides: tuple[Side, Side]) -> None:
    clinic, hospital = sides
    for units in (requests(1, 100), requests(101, 100), in_round(1), requests(301, 1)):
        hospital.book.accept(clinic.book.sign("request", units, SUBJECT), "request", units, SUBJECT)
        clinic.book.accept(hospital.book.sign("receipt", units, SUBJECT), "receipt", units, SUBJECT)
    assert verify(clinic.store.chains()).charged == {"request": 201, "round": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "receipt"}, "another kind"),
        ({"party": "bank"}, "another party"),
        ({"session": "s-2"}, "another session"),
        ({"contract": "0" * 64}, "another contract"),
        ({"unit": "round"}, "another range of units: expected requests 101 to 200, received rounds 101 to 200"),
        ({"first": 102}, "another range of units"),
        ({"count": 99}, "another range of units"),
        ({"subject": OTHER.hex()}, "another subject"),
        ({"head_length": 2}, "is not signed by clinic"),
    ],
)
def test_what_states_something_else_is_refused(
    sides: tuple[Side, Side], changes: dict[str, object], message: str
) -> None:
    clinic, hospital = sides
    units = requests(101, 100)
    request = clinic.book.sign("request", units, SUBJECT)
    with pytest.raises(ReceiptInvalid, match=message):
        hospital.book.accept(
            replace(request, statement=replace(request.statement, **changes)), "request", units, SUBJECT
        )
    hospital.book.accept(request, "request", units, SUBJECT)


def test_a_chain_that_shrank_is_refused(sides: tuple[Side, Side]) -> None:
    clinic, hospital = sides
    for round in (1, 2):
        hospital.book.accept(clinic.book.sign("request", in_round(round), SUBJECT), "request", in_round(round), SUBJECT)
    short = Side(clinic.signer, MemoryStore(), clinic.contract, clinic.peer).book.sign("request", in_round(3), SUBJECT)
    for book in (hospital.book, hospital.opened()):
        with pytest.raises(ReceiptInvalid, match="over 2 ledger entries or more, received another, over 0"):
            book.accept(short, "request", in_round(3), SUBJECT)


class TestKeys:
    def test_any_key_signs(self, sides: tuple[Side, Side]) -> None:
        """One that never leaves its place does as well as one in a file."""
        clinic, _ = sides
        inner = SeedKey(b"k" * 32)

        class Elsewhere:
            public_key = inner.public_key

            def sign(self, data: bytes) -> bytes:
                return inner.sign(data)

        signed = Side(Signer(Elsewhere(), "clinic"), MemoryStore(), clinic.contract, clinic.peer).book.sign(
            "request", in_round(1), SUBJECT
        )
        assert signed == Side(Signer(inner, "clinic"), MemoryStore(), clinic.contract, clinic.peer).book.sign(
            "request", in_round(1), SUBJECT
        )

    def test_a_secret_is_made_once_and_for_its_owner_alone(self, tmp_path: Path) -> None:
        secret = secrets_in(tmp_path).own()
        assert len(secret) == 32
        assert secrets_in(tmp_path).own() == secret == (tmp_path / "secret").read_bytes()
        assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
        assert [each.name for each in tmp_path.iterdir()] == ["secret"]
        given = GivenSecrets(secret)
        assert given.receipt_key().public_key == secrets_in(tmp_path).receipt_key().public_key


def test_what_is_withdrawn_is_not_charged(sides: tuple[Side, Side]) -> None:
    """The one was away: whether the request had come, or the receipt was on its way, both say the same of it."""
    clinic, hospital = sides
    asked = [requests(first, 100) for first in (1, 101, 201, 301)]
    for units in asked[1:3]:
        request = clinic.book.sign("request", units, SUBJECT)
        hospital.book.accept_withdrawals(clinic.book.untold)
        hospital.book.accept(request, "request", units, SUBJECT)
        if units == asked[2]:
            hospital.book.sign("receipt", units, SUBJECT)
        clinic.book.withdraw(units)
    # It was never asked.
    clinic.book.withdraw(asked[0])
    withdrawn = clinic.opened().untold
    assert withdrawn == clinic.book.untold
    assert [each.statement.units for each in withdrawn] == [asked[1], asked[2], asked[0]]
    for book in (hospital.book, hospital.opened()):
        book.accept_withdrawals(withdrawn)
    request = clinic.book.sign("request", asked[3], SUBJECT)
    hospital.book.accept(request, "request", asked[3], SUBJECT)
    receipt = hospital.book.sign("receipt", asked[3], SUBJECT)
    clinic.book.accept(receipt, "receipt", asked[3], SUBJECT)
    assert clinic.book.untold == clinic.opened().untold == []
    for side in sides:
        assert verify(side.store.chains()).charged == {"request": 100}
    assert compare(loaded(clinic.store.chains()), loaded(hospital.store.chains())) == []


def test_what_has_come_cannot_be_withdrawn(sides: tuple[Side, Side]) -> None:
    clinic, hospital = sides
    units = requests(1, 100)
    hospital.book.accept(clinic.book.sign("request", units, SUBJECT), "request", units, SUBJECT)
    receipt = hospital.book.sign("receipt", units, SUBJECT)
    forged = Side(clinic.signer, MemoryStore(), clinic.contract, clinic.peer).book.withdraw(units)
    clinic.book.accept(receipt, "receipt", units, SUBJECT)
    with pytest.raises(ReceiptInvalid, match="requests 1 to 100 cannot be withdrawn"):
        clinic.book.withdraw(units)
    acknowledgement = clinic.book.sign("acknowledgement", units, SUBJECT)
    hospital.book.accept(acknowledgement, "acknowledgement", units, SUBJECT)
    for book in (hospital.book, hospital.opened()):
        with pytest.raises(ReceiptInvalid, match="what was acknowledged"):
            book.accept_withdrawals([forged])
