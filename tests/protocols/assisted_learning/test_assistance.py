"""The port of assisted learning, one suite for all that implement it.

`provider` is the role itself, `in_process` passes the wire's messages to it, `remote` calls a server on loopback, `offline`
writes a bundle for every journey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from comity.errors import (
    ComityError,
    ConflictingOffer,
    MalformedMessage,
    NonFiniteValue,
    ReceiptInvalid,
    RoundOutOfOrder,
    TensorMismatch,
    TrainingDiverged,
    UnexpectedBlob,
)
from comity.ledger.ledger import Head, bytes_by_kind, in_round
from comity.ledger.receipts import SignedStatement, Signer
from comity.protocol.roles import run as play
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.calls import SERVICE, ProviderPort
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance, Checkpoint, trajectory_digest
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.session.contexts import PeerContext
from comity.session.events import ignore
from comity.session.outcome import Outcome
from comity.tensors import Blob, Layout
from comity.transport.bindings.in_process import InProcessChannel
from comity.transport.bindings.remote import RemoteChannel
from tests.contract.courier import Courier

IMPLEMENTATIONS = ["provider", "in_process", "remote", "offline"]
OVER_THE_WIRE = IMPLEMENTATIONS[1:]
"""Those whose messages are decoded: what no decoder lets through never reaches the role."""


def party(context: PeerContext) -> Party:
    return Party(context.task, context.blobs, context.journal, context.contract, context.own, context.peer)


@dataclass(frozen=True)
class Help:
    """A session with a provider behind the port, and what a learner would offer it."""

    pair: Any
    learner: Party
    port: Assistance
    offers: list[Checkpoint]
    signer: Signer

    @property
    def count(self) -> int:
        return len(self.offers)

    def sign(self, kind: Any, round: int, checkpoints: Sequence[Checkpoint]) -> SignedStatement:
        contract = self.pair.provider.contract
        subject = trajectory_digest(round, checkpoints).hex()
        return self.signer.state(kind, contract.session, contract.hash, in_round(round or 1), subject, Head())

    def offer_all(self, checkpoints: Sequence[Checkpoint], round: int = 1) -> None:
        for checkpoint in checkpoints:
            if isinstance(self.port, Provider):
                # Nothing carries blobs to a role that is called directly.
                self.pair.provider.blobs.add(self.learner.blobs.get(checkpoint.digest))
            self.port.offer(round, checkpoint)

    def close(self, count: int | None = None, offers: Sequence[Checkpoint] | None = None, round: int = 1) -> Any:
        offers = self.offers if offers is None else offers
        return self.port.close(round, len(offers) if count is None else count, self.sign("request", round, offers))

    def acknowledge(self, round: int = 1) -> None:
        self.port.acknowledge(round, self.sign("acknowledgement", round, list(self.port.results(round))))

    def complete(self) -> list[bytes]:
        """Goes through the first round; returns the digests of the provider's trajectory."""
        self.offer_all(self.offers)
        self.close()
        digests = [each.digest for each in self.port.results(1)]
        self.acknowledge()
        return digests

    def next_offers(self) -> list[Checkpoint]:
        """What the learner offers in the second round, after the first."""
        for checkpoint in self.port.results(1):
            if isinstance(self.port, Provider):
                self.learner.blobs.add(self.pair.provider.blobs.get(checkpoint.digest))
            self.learner.receive(checkpoint, 1)
        start = self.learner.select(1).digest
        self.learner.begin_round()
        return list(self.learner.train(start, 2))


def begin_learner(context: PeerContext) -> tuple[Party, list[Checkpoint]]:
    """A learner and its first trajectory."""
    learner = party(context)
    start = learner.blobs.add(learner.task.layout.pack(learner.task.initial_state))
    return learner, list(learner.train(start.digest, 1))


@pytest.fixture
def helped(
    request: pytest.FixtureRequest,
    make_pair: Callable[..., Any],
    make_signer: Callable[[str], Signer],
    tmp_path: Path,
) -> Iterator[Callable[..., Help]]:
    stack = ExitStack()

    def begin(implementation: str, pair: Any = None, learner_pair: Any = None) -> Help:
        pair = pair or make_pair(rounds=2)
        provider = Provider(party(pair.provider), pair.provider.receipt_book, ignore)
        if implementation == "provider":
            port: Assistance = provider
        elif implementation == "in_process":
            port = ProviderPort(pair.learner, InProcessChannel(pair.provider, provider))
        elif implementation == "offline":
            courier = Courier(SERVICE, pair.learner, pair.provider, provider, tmp_path, make_signer)
            stack.callback(courier.close)
            port = ProviderPort(pair.learner, courier)
        else:
            host = request.getfixturevalue("serve")((pair.provider, provider))
            connection = request.getfixturevalue("connect")(host.address, contract=pair.provider.contract)
            port = ProviderPort(pair.learner, RemoteChannel(connection))
        # Its own blobs go over the port's.
        learner_seat = replace((learner_pair or pair).learner, blobs=pair.learner.blobs)
        learner, offers = begin_learner(learner_seat)
        return Help(pair, learner, port, offers, make_signer("clinic"))

    with stack:
        yield begin


@pytest.fixture(params=IMPLEMENTATIONS)
def help(request: pytest.FixtureRequest, helped: Callable[..., Help]) -> Help:
    return helped(request.param)


@pytest.fixture(params=OVER_THE_WIRE)
def wired(request: pytest.FixtureRequest, helped: Callable[..., Help]) -> Help:
    return helped(request.param)


@pytest.fixture(scope="module")
def expected(make_pair: Callable[..., Any], make_signer: Callable[[str], Signer]) -> list[bytes]:
    """The provider's trajectory in the first round, when nothing goes wrong."""
    pair = make_pair(rounds=2)
    learner, offers = begin_learner(pair.learner)
    port = Provider(party(pair.provider), pair.provider.receipt_book, ignore)
    return Help(pair, learner, port, offers, make_signer("clinic")).complete()


def assert_refused(help: Help, error: type[ComityError] | tuple[type[ComityError], ...], *bad: Checkpoint) -> str:
    """Offers what must be refused; an implementation may say so no later than when the round is closed."""
    with pytest.raises(error) as caught:
        help.offer_all(bad)
        help.close()
    return str(caught.value)


def test_a_round_gives_the_providers_whole_trajectory(help: Help, expected: list[bytes]) -> None:
    assert help.complete() == expected
    assert expected[0] in [each.digest for each in help.offers]


def test_a_receipt_says_what_was_offered(help: Help) -> None:
    help.offer_all(help.offers)
    statement = help.close().statement
    assert (statement.kind, statement.party, statement.units) == ("receipt", "hospital", in_round(1))
    assert statement.subject == trajectory_digest(1, help.offers).hex()


def test_a_request_about_another_offer_is_refused(help: Help, expected: list[bytes]) -> None:
    help.offer_all(help.offers)
    with pytest.raises(ReceiptInvalid, match="another subject"):
        help.close(count=help.count, offers=help.offers[:-1])
    assert help.complete() == expected


def test_a_request_by_another_key_is_refused(
    help: Help, expected: list[bytes], make_signer: Callable[[str], Signer]
) -> None:
    help.offer_all(help.offers)
    forged = replace(help.sign("request", 1, help.offers), signature="00" * 64)
    for request in (forged, replace(help, signer=make_signer("hospital")).sign("request", 1, help.offers)):
        with pytest.raises(ReceiptInvalid):
            help.port.close(1, help.count, request)
    assert help.complete() == expected


def test_results_are_acknowledged_once_they_are_complete(help: Help, expected: list[bytes]) -> None:
    help.offer_all(help.offers)
    with pytest.raises(RoundOutOfOrder, match="no such results"):
        help.port.acknowledge(1, help.sign("acknowledgement", 1, help.offers))
    assert help.complete() == expected
    help.acknowledge()
    with pytest.raises(ReceiptInvalid, match="another subject"):
        help.port.acknowledge(1, help.sign("acknowledgement", 1, help.offers))


def test_offering_again_changes_nothing(help: Help, expected: list[bytes]) -> None:
    help.offer_all(help.offers[:2])
    help.offer_all(help.offers[:2])
    assert help.complete() == expected


def test_offering_a_closed_round_again_changes_nothing(help: Help, expected: list[bytes]) -> None:
    # Submitting a round again returns the first answer. Needed when learners come back from a crash.
    assert help.complete() == expected
    assert help.complete() == expected


def test_closing_again_gives_the_same_receipt(help: Help, expected: list[bytes]) -> None:
    help.offer_all(help.offers)
    assert help.close() == help.close()
    assert [each.digest for each in help.port.results(1)] == expected
    assert help.close() == help.close()


def test_results_come_again_and_from_any_index(help: Help, expected: list[bytes]) -> None:
    assert help.complete() == expected
    for skip in (0, 1, len(expected) - 1, len(expected), len(expected) + 1):
        again = list(help.port.results(1, skip))
        assert [each.digest for each in again] == expected[skip:]
        assert [each.index for each in again] == list(range(skip, len(expected)))


def test_results_that_were_left_are_taken_up_again(help: Help, expected: list[bytes]) -> None:
    help.offer_all(help.offers)
    help.close()
    left = help.port.results(1)
    first = next(left)
    del left
    rest = help.port.results(1, 1)
    assert [first.digest, *(each.digest for each in rest)] == expected


def test_offers_out_of_order_are_refused(help: Help, expected: list[bytes]) -> None:
    assert "index 0" in assert_refused(help, RoundOutOfOrder, help.offers[1])
    help.offer_all(help.offers[:1])
    assert_refused(help, RoundOutOfOrder, help.offers[2])
    assert help.complete() == expected


@pytest.mark.parametrize("change", ["loss", "blob"])
def test_an_offer_cannot_change(help: Help, expected: list[bytes], change: str) -> None:
    first, second = help.offers[:2]
    other = replace(first, loss=Loss(first.loss.sum + 1, first.loss.count))
    if change == "blob":
        other = replace(first, digest=second.digest)
    message = assert_refused(help, ConflictingOffer, first, other)
    assert "checkpoint 0" in message
    assert help.complete() == expected


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_round_closes_with_the_number_that_was_offered(help: Help, expected: list[bytes], wrong: int) -> None:
    help.offer_all(help.offers)
    with pytest.raises(RoundOutOfOrder, match=f"expected {help.count} checkpoints, received {help.count + wrong}"):
        help.close(count=help.count + wrong)
    assert help.complete() == expected


def test_an_empty_round_cannot_be_closed(help: Help, expected: list[bytes]) -> None:
    with pytest.raises(RoundOutOfOrder):
        help.close(count=0)
    assert help.complete() == expected


def test_there_are_no_results_before_a_round_is_closed(help: Help, expected: list[bytes]) -> None:
    help.offer_all(help.offers[:1])
    with pytest.raises(RoundOutOfOrder, match="no results"):
        list(help.port.results(1))
    assert help.complete() == expected


@pytest.mark.parametrize("round", [0, 2])
def test_another_round_is_not_on(help: Help, expected: list[bytes], round: int) -> None:
    named = f"round {round}" if round else "round 0|the session"
    with pytest.raises((RoundOutOfOrder, UnexpectedBlob), match=named):
        help.offer_all(help.offers[:1], round)
        help.close()
    with pytest.raises(RoundOutOfOrder, match=named):
        help.close(round=round)
    with pytest.raises(RoundOutOfOrder, match=named):
        list(help.port.results(round))
    assert help.complete() == expected


def test_a_wrong_iteration_is_refused(help: Help, expected: list[bytes]) -> None:
    assert_refused(help, MalformedMessage, replace(help.offers[0], iteration=1))
    assert help.complete() == expected


def test_a_loss_over_another_number_of_samples_is_refused(help: Help, expected: list[bytes]) -> None:
    loss = help.offers[0].loss
    message = assert_refused(help, MalformedMessage, replace(help.offers[0], loss=Loss(loss.sum, loss.count + 1)))
    assert f"expected {loss.count}, received {loss.count + 1}" in message
    assert help.complete() == expected


@pytest.mark.parametrize("sum", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(wired: Help, expected: list[bytes], sum: float) -> None:
    first = wired.offers[0]
    assert_refused(wired, NonFiniteValue, replace(first, loss=Loss(sum, first.loss.count)))
    assert wired.complete() == expected


def test_a_negative_loss_is_refused(wired: Help, expected: list[bytes]) -> None:
    first = wired.offers[0]
    assert_refused(wired, MalformedMessage, replace(first, loss=Loss(-1.0, first.loss.count)))
    assert wired.complete() == expected


def test_weights_that_are_not_finite_are_refused(wired: Help, expected: list[bytes]) -> None:
    first = wired.offers[0]
    data = bytearray(wired.learner.blobs.get(first.digest).data)
    poisoned = wired.learner.blobs.add(Blob.of(data[:-4] + b"\x00\x00\xc0\x7f"))
    assert "NaN" in assert_refused(wired, NonFiniteValue, replace(first, digest=poisoned.digest))
    assert wired.complete() == expected


def test_tensors_of_another_model_are_refused(wired: Help, expected: list[bytes]) -> None:
    state = wired.learner.task.layout.view(wired.learner.blobs.get(wired.offers[0].digest).data)
    renamed = {name.replace("weight", "height"): tensor for name, tensor in state.items()}
    other = wired.learner.blobs.add(Layout.of(renamed).pack(renamed))
    assert_refused(wired, TensorMismatch, replace(wired.offers[0], digest=other.digest))
    assert wired.complete() == expected


def test_more_checkpoints_than_the_contracts_are_refused(help: Help, expected: list[bytes]) -> None:
    last = help.offers[-1]
    layout = help.learner.task.layout
    state = {name: tensor + 1 for name, tensor in layout.view(help.learner.blobs.get(last.digest).data).items()}
    more = help.learner.blobs.add(layout.pack(state))
    extra = replace(last, index=last.index + 1, iteration=last.iteration + 5, digest=more.digest)
    assert_refused(help, (RoundOutOfOrder, UnexpectedBlob), *help.offers, extra)
    assert help.complete() == expected


def test_nothing_can_be_offered_once_a_round_is_closed(help: Help, expected: list[bytes]) -> None:
    help.offer_all(help.offers[:-1])
    help.close(offers=help.offers[:-1])
    with pytest.raises((RoundOutOfOrder, UnexpectedBlob)):
        help.offer_all(help.offers[-1:])
        help.close()
    assert len(list(help.port.results(1))) == len(expected)


def test_a_finished_round_is_over_when_the_next_begins(help: Help, expected: list[bytes]) -> None:
    assert help.complete() == expected
    offers = help.next_offers()
    help.offer_all(offers, 2)
    help.close(offers=offers, round=2)
    for old in (1, 3):
        with pytest.raises(RoundOutOfOrder):
            help.close(round=old)
        with pytest.raises(RoundOutOfOrder):
            list(help.port.results(old))
    assert len(list(help.port.results(2))) == len(expected)


def test_no_round_follows_the_last(help: Help) -> None:
    help.complete()
    offers = help.next_offers()
    help.offer_all(offers, 2)
    help.close(offers=offers, round=2)
    before = [each.digest for each in help.port.results(2)]
    with pytest.raises((RoundOutOfOrder, UnexpectedBlob)):
        help.offer_all(help.offers[:1], 3)
        help.close(offers=help.offers[:1], round=3)
    assert [each.digest for each in help.port.results(2)] == before


def test_a_round_can_be_followed_while_the_learner_works(help: Help, expected: list[bytes]) -> None:
    work = iter([True, True])

    def meanwhile() -> bool:
        return next(work, False)

    help.offer_all(help.offers)
    help.close()
    assert [each.digest for each in help.port.results(1, meanwhile=meanwhile)] == expected


@pytest.mark.parametrize("implementation", [each for each in IMPLEMENTATIONS if each != "offline"])
def test_a_provider_that_diverges_says_so_to_the_learner(
    implementation: str, helped: Callable[..., Help], make_pair: Callable[..., Any]
) -> None:
    steep = make_pair(rounds=2, optimizer="sgd", learning_rate=1e30)
    help = helped(implementation, steep, learner_pair=make_pair(rounds=2))
    help.offer_all(help.offers)
    help.close()
    got = []
    with pytest.raises(TrainingDiverged, match=r"round 1 at iteration \d+.*lower the session's learning_rate"):
        got.extend(help.port.results(1))
    # What came before it came; from then on the session has one answer.
    assert [each.index for each in got] == list(range(len(got)))
    with pytest.raises(TrainingDiverged):
        list(help.port.results(1, len(got)))
    with pytest.raises(TrainingDiverged):
        help.close()


def run(help: Help) -> Outcome:
    return play(Learner(party(help.pair.learner), [(help.port, help.pair.learner.receipt_book)], ignore))[0]


def test_a_session_is_the_same_through_every_implementation(
    helped: Callable[..., Help], make_pair: Callable[..., Any]
) -> None:
    runs = {}
    for implementation in OVER_THE_WIRE:
        help = helped(implementation, make_pair(rounds=3))
        runs[implementation] = run(help), help.pair
    digests = {outcome.digest for outcome, _ in runs.values()}
    assert len(digests) == 1
    # The network carries what the simulation does, and both sides of it count the same bytes.
    assert any(runs["remote"][0].metrics["learner_picks"])  # type: ignore[arg-type]
    crossed = []
    for implementation in OVER_THE_WIRE:
        pair = runs[implementation][1]
        sent, received = (bytes_by_kind(pair.learner_store.entries(), way) for way in ("sent", "received"))
        assert sent == bytes_by_kind(pair.provider_store.entries(), "received")
        assert received == bytes_by_kind(pair.provider_store.entries(), "sent")
        stores = pair.learner_store, pair.provider_store
        said = [{(each.fact.identity, each.fact.size) for each in store.entries()} for store in stores]
        crossed.append((sent, received, said))
    assert all(each == crossed[0] for each in crossed)
    assert set(crossed[0][0]) == {"checkpoint", "loss"}
