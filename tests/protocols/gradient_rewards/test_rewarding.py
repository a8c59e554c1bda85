"""The port of gradient rewards, one suite for both that implement it: messages in one process, and calls over loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from comity.contract import Release
from comity.errors import (
    ComityError,
    ConflictingOffer,
    MalformedMessage,
    NonFiniteValue,
    PolicyRefusal,
    ReceiptInvalid,
    RoundOutOfOrder,
    SessionFailed,
    TensorMismatch,
    UnexpectedBlob,
    UnknownBlob,
)
from comity.ledger.comparison import compare
from comity.ledger.ledger import in_round
from comity.ledger.verification import verify
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.protocols.gradient_rewards.calls import ServerPort
from comity.protocols.gradient_rewards.client import Client
from comity.protocols.gradient_rewards.definition import PROTOCOL
from comity.protocols.gradient_rewards.messages import Reward, Rewarding, update_layout
from comity.protocols.gradient_rewards.rewards import sparsify
from comity.protocols.gradient_rewards.server import Server
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event, ignore
from comity.session.gathering.messages import News
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.worker import SessionWorker
from comity.simulation.in_process import parties
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.tensors import Blob, Layout, sparse
from comity.transport import blobs, sessions
from comity.transport.bindings.in_process import InProcessChannel
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.bindings.servicer import serve
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from comity.transport.server import NodeServer

IMPLEMENTATIONS = ["in_process", "remote"]
SCRIPT = """
[session]
protocol = "gradient_rewards"
id = "rewards"
acceptors = ["server"]
rounds = 3
seed = 5
[session.model]
name = "mlp"
options = { hidden = 4 }
[session.task]
input_shape = [1, 8, 8]
classes = 10
[session.terms]
clients = 3
min_clients = 3
learning_rate = 0.1
epochs = 1
batch_size = 16
length = 0.5
[party.server]
role = "server"
"""
CLIENT = """
[party.{name}]
role = "client"
[party.{name}.data]
source = "digits"
per_class = 20
partition = {{ name = "uniform", parties = 3, index = {index} }}
"""
NAMES = ("ann", "bob", "cleo")
LENGTH = 0.5


def script(**terms: Any) -> Any:
    text = SCRIPT + "".join(CLIENT.format(name=name, index=index) for index, name in enumerate(NAMES))
    parsed = parse_script(text)
    session = parsed.session.model_copy(update={"terms": {**parsed.session.terms, **terms}})
    return parsed.model_copy(update={"session": session})


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


RELEASE = Release(samples=20, kept="round")


@dataclass
class Company:
    """A server and three clients, whose contexts exist; a test acts for the clients."""

    server_party: LocalParty
    client_parties: dict[str, LocalParty]
    place: SessionContext
    contexts: dict[str, PeerContext]
    client_seats: dict[str, PeerContext]
    role: Server
    ports: dict[str, Rewarding]
    clock: Clock
    poke: Callable[[], object]
    events: list[Event] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(self.place.task.initial_state[name].numel() for name in self.place.task.parameters)

    def direction(self, seed: int, *, length: float = LENGTH) -> torch.Tensor:
        values = torch.randn(self.parameters, generator=torch.Generator().manual_seed(seed))
        return values * (length / values.norm())

    def keep(self, client: str, values: torch.Tensor) -> bytes:
        return self.client_seats[client].blobs.add(update_layout(len(values)).pack({"update": values})).digest

    def submit(self, client: str, round: int = 1, *, seed: int | None = None, **options: Any) -> bytes:
        number = NAMES.index(client) if seed is None else seed
        update = self.keep(client, self.direction(number + 10 * round, **options))
        self.ports[client].submit(round, update, RELEASE)
        return update

    def confirm(self, client: str, update: bytes, round: int = 1) -> None:
        receipt_book = self.client_seats[client].receipt_book
        receipt_book.accept(
            self.ports[client].confirm(round, receipt_book.sign("request", in_round(round), update)),
            "receipt",
            in_round(round),
            update,
        )

    def give(self, client: str, round: int = 1) -> None:
        self.confirm(client, self.submit(client, round), round)

    def next_news(self, client: str, after: int = 0) -> News | None:
        """The next thing that the client hears; None where it would wait."""
        news = self.ports[client].news(after)
        try:
            return next(news)
        finally:
            news.close()  # type: ignore[attr-defined]

    def settled(self, client: str, round: int = 1) -> Reward:
        for news in self.ports[client].news(round - 1):
            if news is not None and news.kind == "settled" and news.round == round:
                assert news.answer is not None
                return news.answer
        raise AssertionError(f"round {round} is over for {client} without a reward")

    def collect(self, client: str, round: int = 1) -> Reward:
        reward, receipt_book = self.settled(client, round), self.client_seats[client].receipt_book
        receipt_book.accept(reward.statement, "statement", in_round(round), reward.details.subject)
        self.ports[client].fetch(reward)
        self.ports[client].acknowledge(
            round, receipt_book.sign("acknowledgement", in_round(round), reward.details.subject)
        )
        return reward

    def complete(self, round: int = 1, clients: Sequence[str] = NAMES) -> dict[str, Reward]:
        """A round in which nothing goes wrong."""
        for client in clients:
            self.give(client, round)
        return {client: self.collect(client, round) for client in clients}

    def pass_deadline(self) -> None:
        self.clock.now += 1e6
        self.poke()


Convene = Callable[..., Company]


@pytest.fixture
def convene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Convene]:
    with ExitStack() as stack:

        def start(implementation: str = "in_process", **terms: Any) -> Company:
            clock, events = Clock(), list[Event]()
            monkeypatch.setattr("comity.protocols.gradient_rewards.server.time.monotonic", clock)
            clients, (server,) = parties(script(**terms))
            contract, _ = draft_contract(script(**terms), server, "rewards")
            own = server.membership("server")
            place = server.session_context(contract, own, events.append)
            members = {client.name: client.membership("client") for client in clients}
            peer_contexts = {name: server.peer_context(place, member, apart=True) for name, member in members.items()}
            client_seats = {
                client.name: client.peer_context(client.session_context(contract, members[client.name], ignore), own)
                for client in clients
            }
            role = Server(place, list(peer_contexts.values()))
            by_name = {client.name: client for client in clients}
            company = Company(
                server, by_name, place, peer_contexts, client_seats, role, {}, clock, role.advance, events
            )
            if implementation == "in_process":
                company.role.advance()
                company.ports = {
                    name: ServerPort(peer_context, InProcessChannel(peer_contexts[name], role))
                    for name, peer_context in client_seats.items()
                }
            else:
                _over_loopback(company, stack)
            return company

        yield start


def _over_loopback(company: Company, stack: ExitStack) -> None:
    hosted = SessionRegistry()
    worker = SessionWorker(company.role, "rewards", company.role.wakes_in)
    for peer_context in company.contexts.values():
        hosted.add(AcceptedSession(peer_context, company.role, worker))
    server = NodeServer(None, [blobs.SERVICE, PROTOCOL.load().service.name])
    blobs.BlobServicer(lambda context: sessions.session_of(hosted, context)).add_to(server.server)
    serve(PROTOCOL.load().service, PROTOCOL.name, hosted, server.server, server.streams)
    address = server.start("127.0.0.1:0")
    stack.callback(server.stop, 0)
    stack.callback(hosted.drain)
    for name, peer_context in company.client_seats.items():
        connection = stack.enter_context(
            PeerConnection(Identity(name), "server", address, RetryPolicy(call_s=10.0, retry_s=10.0))
        )
        connection.enter(peer_context.contract.session, peer_context.contract.hash)
        company.ports[name] = ServerPort(peer_context, RemoteChannel(connection))
    # The worker waits for the deadline; a call wakes it.
    company.poke = lambda: worker.call(lambda: None)


@pytest.fixture(params=IMPLEMENTATIONS)
def company(request: pytest.FixtureRequest, convene: Convene) -> Company:
    return convene(request.param)


def assert_refused(error: type[ComityError] | tuple[type[ComityError], ...], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_a_round_pays_every_client(company: Company) -> None:
    for client in NAMES:
        assert company.next_news(client) == News("opened", 1)
    rewards = company.complete()
    best = max(rewards.values(), key=lambda each: each.details.importance)
    assert best.details.fraction == 1
    assert best.details.kept == company.parameters
    assert sum(each.details.importance for each in rewards.values()) == pytest.approx(1)
    updates = torch.stack([company.direction(10 + number) for number in range(3)])
    weights = [peer_context.peer.samples for peer_context in company.contexts.values()]
    total = sum(weight / sum(weights) * update for weight, update in zip(weights, updates, strict=True))
    assert isinstance(total, torch.Tensor)
    for client, reward in rewards.items():
        indices, values = sparse.decode(company.ports[client].fetch(reward).data, company.parameters)
        wanted = sparsify(total, reward.details.fraction)
        assert torch.equal(torch.as_tensor(indices), wanted.indices)
        assert torch.allclose(torch.as_tensor(values), wanted.values, atol=1e-6)


def test_every_call_may_be_repeated(company: Company) -> None:
    update = company.submit("ann")
    company.ports["ann"].submit(1, update, RELEASE)
    company.confirm("ann", update)
    company.confirm("ann", update)
    for client in NAMES[1:]:
        company.give(client)
    first = company.collect("ann")
    assert company.collect("ann") == first
    # Whoever lost the answers asks again after the round was settled.
    company.role.submit("ann", 1, update, RELEASE)
    company.confirm("ann", update)
    assert company.next_news("ann", 1) == News("opened", 2)


def test_a_session_ends_after_its_last_round(company: Company) -> None:
    for round in (1, 2, 3):
        company.complete(round)
    assert company.next_news("bob", 3) is not None
    assert company.next_news("bob", 3).kind == "over"  # type: ignore[union-attr]
    assert_refused((RoundOutOfOrder, UnexpectedBlob), lambda: company.submit("bob", 4))


@pytest.mark.parametrize("round", [0, 2])
def test_an_update_of_another_round_is_refused(company: Company, round: int) -> None:
    belongs = f"round {round}" if round else "of the session"
    assert belongs in assert_refused((RoundOutOfOrder, UnexpectedBlob), lambda: company.submit("ann", round))
    company.complete()


def test_an_update_that_changes_is_refused(company: Company) -> None:
    company.submit("ann")
    assert_refused((ConflictingOffer, UnexpectedBlob), lambda: company.submit("ann", seed=77))
    company.give("ann")
    for client in NAMES[1:]:
        company.give(client)
    company.collect("ann")


@pytest.mark.parametrize("release", [Release(samples=0, kept="round"), Release(samples=20, kept="session")])
def test_an_update_is_released_for_its_round_and_stands_on_samples(convene: Convene, release: Release) -> None:
    company = convene()
    update = company.keep("ann", company.direction(1))
    refused = assert_refused(MalformedMessage, lambda: company.ports["ann"].submit(1, update, release))
    assert f"{release.samples} samples, kept for the {release.kept}" in refused


def test_an_update_from_few_samples_does_not_leave(convene: Convene) -> None:
    company = convene()
    update = company.keep("ann", company.direction(1))
    few = Release(samples=9, kept="round")
    refused = assert_refused(PolicyRefusal, lambda: company.ports["ann"].submit(1, update, few))
    assert "policy.min_samples keeps this from leaving: expected at least 10, received 9" in refused
    # Nor did its blob.
    assert all(each.fact.kind != "update" for each in company.client_parties["ann"].store.entries())


@pytest.mark.parametrize("length", [0.0, LENGTH / 2, LENGTH * 1.01])
def test_an_update_of_another_length_is_refused(company: Company, length: float) -> None:
    assert "not normalized" in assert_refused(MalformedMessage, lambda: company.submit("ann", length=length))


def test_an_honest_update_follows_one_that_was_refused(convene: Convene) -> None:
    # What was uploaded counts, so that nobody fills the server: it is put right in the next round.
    company = convene("in_process")
    assert_refused(MalformedMessage, lambda: company.submit("ann", length=1.0))
    for client in NAMES[1:]:
        company.give(client)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_refused(company: Company, value: float) -> None:
    values = company.direction(1)
    values[3] = value
    update = company.keep("ann", values)
    assert_refused(NonFiniteValue, lambda: company.ports["ann"].submit(1, update, RELEASE))
    company.complete()


def test_an_update_of_another_shape_is_refused(company: Company) -> None:
    update = company.keep("ann", torch.ones(company.parameters + 1))
    assert_refused(ComityError, lambda: company.ports["ann"].submit(1, update, RELEASE))
    values = company.direction(1).to(torch.float16)
    blob = Layout.of({"update": values}).pack({"update": values})
    company.client_seats["ann"].blobs.add(blob)
    assert_refused(ComityError, lambda: company.ports["ann"].submit(1, blob.digest, RELEASE))
    renamed = Layout.of({"upgrade": company.direction(1)[: company.parameters]})
    other = company.client_seats["ann"].blobs.add(renamed.pack({"upgrade": company.direction(1)}))
    assert_refused(ComityError, lambda: company.ports["ann"].submit(1, other.digest, RELEASE))
    company.complete()


def test_an_update_that_was_not_uploaded_is_refused(convene: Convene) -> None:
    company = convene()
    assert_refused(UnknownBlob, lambda: company.role.submit("ann", 1, bytes(32), RELEASE))


def test_a_reward_is_no_update(convene: Convene) -> None:
    company = convene()
    reward = company.complete()["ann"]
    assert_refused(TensorMismatch, lambda: company.role.submit("ann", 2, reward.details.entries, RELEASE))


def test_a_request_about_something_else_is_refused(company: Company) -> None:
    update = company.submit("ann")
    wrong = company.client_seats["ann"].receipt_book.sign("request", in_round(1), bytes(32))
    assert_refused(ReceiptInvalid, lambda: company.ports["ann"].confirm(1, wrong))
    forged = replace(wrong, statement=replace(wrong.statement, subject=update.hex()))
    assert_refused(ReceiptInvalid, lambda: company.ports["ann"].confirm(1, forged))


def test_another_clients_signature_is_refused(company: Company) -> None:
    update = company.submit("ann")
    bobs = company.client_seats["bob"].receipt_book.sign("request", in_round(1), update)
    assert_refused(ReceiptInvalid, lambda: company.ports["ann"].confirm(1, bobs))
    company.confirm("ann", update)


def test_there_is_nothing_to_confirm_before_an_update(company: Company) -> None:
    request = company.client_seats["ann"].receipt_book.sign("request", in_round(1), bytes(32))
    assert_refused(RoundOutOfOrder, lambda: company.ports["ann"].confirm(1, request))


def test_there_is_no_reward_to_acknowledge_before_the_round_is_settled(company: Company) -> None:
    company.give("ann")
    word = company.client_seats["ann"].receipt_book.sign("acknowledgement", in_round(1), bytes(32))
    assert_refused(RoundOutOfOrder, lambda: company.ports["ann"].acknowledge(1, word))


def test_an_acknowledgement_of_something_else_is_refused(company: Company) -> None:
    for client in NAMES:
        company.give(client)
    company.settled("ann")
    word = company.client_seats["ann"].receipt_book.sign("acknowledgement", in_round(1), bytes(32))
    assert_refused(ReceiptInvalid, lambda: company.ports["ann"].acknowledge(1, word))


def test_no_reward_before_the_client_has_signed_for_its_update(company: Company) -> None:
    update = company.submit("ann")
    for client in NAMES[1:]:
        company.give(client)
    assert company.role.round == 1
    company.pass_deadline()
    # It is in the round, and asked to sign before it hears what the round came to.
    assert company.collect("bob").details.round == 1
    assert company.next_news("ann") == News("opened", 1)
    entries = bytes.fromhex(
        company.role.outcome().metrics["bytes_by_round"] and company.place.journal.records()[-1].fields["entries"][0]
    )  # type: ignore[index, arg-type]
    due = replace(company.settled("bob"), details=replace(company.settled("bob").details, entries=entries))
    assert_refused(UnknownBlob, lambda: company.ports["ann"].fetch(due))
    company.confirm("ann", update)
    reward = company.collect("ann")
    assert reward.details.entries == entries


def test_no_client_gets_anothers_reward(company: Company) -> None:
    rewards = company.complete()
    for mine in NAMES:
        for theirs in NAMES:
            if rewards[mine].details.entries != rewards[theirs].details.entries:
                assert_refused(UnknownBlob, lambda a=mine, b=theirs: company.ports[a].fetch(rewards[b]))  # type: ignore[misc]


def test_a_deadline_with_enough_clients_goes_on_without_the_late(convene: Convene, implementation: str) -> None:
    company = convene(implementation, min_clients=2)
    before = company.next_news("cleo")
    assert before == News("opened", 1)
    for client in NAMES[:2]:
        company.give(client)
    assert company.role.round == 1
    company.pass_deadline()
    rewards = [company.collect(client) for client in NAMES[:2]]
    late = assert_refused((RoundOutOfOrder, UnexpectedBlob), lambda: company.submit("cleo"))
    assert "round 2" in late
    assert company.next_news("cleo") == News("opened", 2)
    # The late one keeps its importance: the two share what they had together.
    third = company.contexts["cleo"].peer.samples / sum(
        peer_context.peer.samples for peer_context in company.contexts.values()
    )
    assert sum(each.details.importance for each in rewards) == pytest.approx(1 - third)
    company.complete(2)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_deadline_with_too_few_clients_is_put_off(convene: Convene, implementation: str) -> None:
    company = convene(implementation, min_clients=2)
    company.give("ann")
    company.pass_deadline()
    assert company.next_news("bob") == News("opened", 1)
    assert "deadline-extended" in [event.kind for event in company.events]
    for client in NAMES[1:]:
        company.give(client)
    assert company.collect("bob").details.round == 1


def test_a_client_that_leaves_is_not_waited_for(convene: Convene, implementation: str) -> None:
    company = convene(implementation, min_clients=2)
    company.role.leave("bob")
    company.role.leave("bob")
    for client in ("ann", "cleo"):
        company.give(client)
    company.collect("ann")
    company.role.admit(company.contexts["bob"])
    for client in NAMES:
        company.give(client, 2)
    assert company.collect("bob", 2).details.round == 2
    kinds = [record.kind for record in company.place.journal.records()]
    assert (kinds.count("left"), kinds.count("returned")) == (1, 1)


def test_too_few_clients_end_the_session_for_all(convene: Convene) -> None:
    company = convene("remote")
    company.role.leave("bob")
    company.poke()
    for client in ("ann", "cleo"):
        assert "too few clients" in assert_refused(SessionFailed, lambda name=client: company.next_news(name, 1))  # type: ignore[misc]
    assert company.role.failure is not None
    assert_refused(SessionFailed, lambda: company.role.admit(company.contexts["bob"]))


def rounds_of_copies(company: Company, rounds: Sequence[int]) -> None:
    """Rounds in which bob sends what ann sends."""
    for round in rounds:
        for client, seed in (("ann", 0), ("bob", 0), ("cleo", 2)):
            company.confirm(client, company.submit(client, round, seed=seed), round)
        for client in NAMES:
            company.collect(client, round)


def test_a_copy_is_excluded_by_a_decision_that_is_recorded(convene: Convene, implementation: str) -> None:
    company = convene(implementation, min_clients=2, free_riders="exclude", exclude_after=2)
    rounds_of_copies(company, [1, 2])
    assert_refused(PolicyRefusal, lambda: company.next_news("bob", 2))
    said = assert_refused(PolicyRefusal, lambda: company.submit("bob", 3))
    assert "a copy, in 2 rounds in a row" in said
    assert company.role.answer("bob", 2) is not None
    for client in ("ann", "cleo"):
        company.give(client, 3)
    assert company.collect("ann", 3).details.round == 3
    records = [record for record in company.place.journal.records() if record.kind == "excluded"]
    assert [(record.round, record.fields["party"]) for record in records] == [(2, "bob")]
    # What it had went to the others, of whom one gets everything.
    result = company.role.outcome().metrics
    assert max(each for each in result["fraction_by_round"][-1] if each is not None) == 1
    assert result["excluded"] == ["bob"]
    assert result["findings_by_round"] == [["a copy", "a copy", ""], ["a copy", "a copy", ""], ["", None, ""]]


def test_an_exclusion_is_replayed_and_not_decided_again(convene: Convene) -> None:
    company = convene(min_clients=2, free_riders="exclude", exclude_after=2)
    rounds_of_copies(company, [1, 2])
    again = Server(company.place, list(company.contexts.values()))
    assert_refused(PolicyRefusal, lambda: again.admit(company.contexts["bob"]))
    assert_refused(PolicyRefusal, lambda: again.submit("bob", 3, bytes(32), RELEASE))
    again.admit(company.contexts["ann"])
    assert again.outcome() == company.role.outcome()
    assert [record.kind for record in company.place.journal.records()].count("excluded") == 1


def test_who_is_warned_of_goes_on(convene: Convene) -> None:
    company = convene(exclude_after=2)
    rounds_of_copies(company, [1, 2, 3])
    assert company.role.outcome().metrics["excluded"] == []


def test_who_has_left_lowers_nobodys_share(convene: Convene) -> None:
    company = convene(min_clients=2)
    company.complete(1)
    best = max(NAMES, key=lambda name: company.role.outcome().metrics["importance_by_round"][0][NAMES.index(name)])
    company.role.leave(best)
    others = [name for name in NAMES if name != best]
    company.complete(2, others)
    fractions = company.role.outcome().metrics["fraction_by_round"][1]
    assert max(each for each in fractions if each is not None) == 1


def test_one_that_sits_out_is_not_waited_for(convene: Convene, implementation: str) -> None:
    company = convene(implementation, min_clients=2)
    company.ports["bob"].sit_out(1)
    company.ports["bob"].sit_out(1)
    for client in ("ann", "cleo"):
        company.give(client)
    assert company.collect("ann").details.round == 1
    company.ports["bob"].sit_out(1)
    for client in NAMES:
        company.give(client, 2)
    assert company.collect("bob", 2).details.round == 2
    said = company.role.outcome().metrics["findings_by_round"]
    assert "sat out" in said[0][1]
    assert said[1] == ["", "", ""]
    assert_refused(ConflictingOffer, lambda: company.ports["bob"].sit_out(2))
    assert_refused(RoundOutOfOrder, lambda: company.ports["ann"].sit_out(5))
    again = Server(company.place, list(company.contexts.values()))
    assert again.outcome() == company.role.outcome()


def test_a_round_that_too_many_sit_out_ends_the_session(convene: Convene) -> None:
    company = convene(min_clients=2)
    company.give("ann")
    for client in ("bob", "cleo"):
        company.ports[client].sit_out(1)
    with pytest.raises(SessionFailed, match="2 of 3 sit it out"):
        company.role.advance()


def test_one_that_never_downloads_disturbs_nobody(convene: Convene, implementation: str) -> None:
    company = convene(implementation, min_clients=2)
    for round in (1, 2, 3):
        for client in NAMES:
            company.give(client, round)
        for client in NAMES[:2]:
            company.collect(client, round)
    assert not company.role.over
    company.role.leave("ann")
    company.role.leave("bob")
    assert not company.role.over
    company.clock.now += 1e6
    # It was waited for as long as for an update.
    assert company.role.over


def test_a_server_goes_on_where_its_journal_ends(convene: Convene) -> None:
    company = convene(min_clients=2)
    company.complete(1)
    company.complete(2, NAMES[:2] if company.pass_deadline() else NAMES)
    company.give("ann", 3)
    again = Server(company.place, list(company.contexts.values()))
    assert again.round == 3
    (ours, at), (theirs, there) = again.follow("bob", 2), company.role.follow("bob", 2)
    assert ours.read(at) is not None
    assert ours.read(at)[0] == theirs.read(there)[0]
    for client in NAMES[1:]:
        company.give(client, 3)
    company.role.advance()
    assert Server(company.place, list(company.contexts.values())).outcome() == company.role.outcome()


def test_who_was_late_stays_late_after_a_restart(convene: Convene) -> None:
    company = convene(min_clients=2)
    for client in NAMES[:2]:
        company.give(client)
    company.pass_deadline()
    again = Server(company.place, list(company.contexts.values()))
    assert again.round == 2
    assert again.answer("cleo", 1) is None
    assert_refused(RoundOutOfOrder, lambda: again.submit("cleo", 1, bytes(32), RELEASE))
    for client in NAMES[:2]:
        assert again.answer(client, 1) == company.role.answer(client, 1)


def gathering(company: Company, joined: Sequence[str]) -> Server:
    """A server with an empty journal, to which some have come so far."""
    store = MemoryStore()
    party = replace_store(company.server_party, store)
    place = party.session_context(company.place.contract, company.place.own, ignore)
    role = Server(place, [])
    for name in joined:
        role.admit(party.peer_context(place, company.contexts[name].peer, apart=True))
    return role


def replace_store(party: LocalParty, store: MemoryStore) -> LocalParty:
    return LocalParty(party.name, party.config, GivenSecrets(b"server-5"), store)


def test_the_first_round_waits_for_all_clients(convene: Convene) -> None:
    company = convene()
    role = gathering(company, NAMES[:2])
    assert not role.advance()
    assert (role.round, role.wakes_in()) == (0, None)
    role.admit(company.contexts["ann"])
    assert not role.advance()
    role.admit(company.contexts["cleo"])
    assert role.advance()
    assert role.round == 1


def test_nobody_joins_after_the_beginning(convene: Convene) -> None:
    company = convene()
    role = gathering(company, NAMES)
    stranger = replace(company.contexts["ann"], peer=company.contexts["ann"].peer.model_copy(update={"party": "dave"}))
    assert "has begun" in assert_refused(RoundOutOfOrder, lambda: role.admit(stranger))
    assert_refused(RoundOutOfOrder, lambda: role.submit("dave", 1, bytes(32), RELEASE))
    assert_refused(
        RoundOutOfOrder,
        lambda: role.confirm(
            "dave", 1, company.client_seats["ann"].receipt_book.sign("request", in_round(1), bytes(32))
        ),
    )
    assert_refused(RoundOutOfOrder, lambda: role.answer("dave", 1))


def play(company: Company) -> dict[str, Any]:
    """The clients themselves, one thread each, as over a network."""
    roles = {name: Client(company.client_seats[name], company.ports[name]) for name in NAMES}
    found: dict[str, BaseException] = {}

    def work(name: str) -> None:
        try:
            for _ in roles[name].work():
                pass
        except BaseException as error:  # noqa: BLE001 - the test raises it
            found[name] = error

    threads = [threading.Thread(target=work, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if found:
        raise next(iter(found.values()))
    return {name: role.outcome() for name, role in roles.items()}


def play_in_turns(company: Company) -> dict[str, Any]:
    roles = {name: Client(company.client_seats[name], company.ports[name]) for name in NAMES}
    work = [role.work() for role in roles.values()]
    while work:
        work = [each for each in work if next(each, "done") != "done"]
    return {name: role.outcome() for name, role in roles.items()}


def test_a_session_is_the_same_through_every_implementation(convene: Convene) -> None:
    alone, wired = convene("in_process"), convene("remote")
    here, there = play_in_turns(alone), play(wired)
    assert {name: each.digest for name, each in here.items()} == {name: each.digest for name, each in there.items()}
    left, right = alone.role.outcome(), wired.role.outcome()
    assert left == right
    assert left.metrics["clients"] == list(NAMES)
    for company in (alone, wired):
        server = company.server_party.store
        for client in company.client_parties.values():
            verify(client.store.chains())
            assert compare(server.chains(), client.store.chains()) == []
        verify(server.chains())


class Lying:
    """A server that says what a test tells it to."""

    def __init__(self, port: Rewarding, news: Sequence[News] = (), **lies: Any) -> None:
        self._port, self._news, self._lies = port, news, lies

    def __getattr__(self, name: str) -> Any:
        return self._lies.get(name) or getattr(self._port, name)

    def news(self, after: int) -> Iterator[News | None]:
        yield from self._news or self._port.news(after)


def client_of(company: Company, name: str, **lies: Any) -> Client:
    return Client(company.client_seats[name], Lying(company.ports[name], **lies))


def contributed(company: Company) -> Reward:
    """Ann's client has contributed; the others too; what she is due."""
    work = Client(company.client_seats["ann"], company.ports["ann"]).work()
    next(work)
    for client in NAMES[1:]:
        company.give(client)
    return company.settled("ann")


def test_a_client_finds_a_false_statement(convene: Convene) -> None:
    company = convene()
    reward = contributed(company)
    for change in ({"importance": 0.9}, {"contribution": 1.0}, {"fraction": 0.0}, {"kept": 1}, {"size": 1}):
        false = replace(reward, details=replace(reward.details, **change))  # type: ignore[arg-type]
        with pytest.raises(ReceiptInvalid):
            list(client_of(company, "ann", news=[News("settled", 1, false)]).work())


def test_a_client_finds_a_reward_that_is_not_what_was_stated(convene: Convene) -> None:
    company = convene()
    reward = contributed(company)
    other = sparse.encode(torch.tensor([0]), torch.tensor([1.0]), company.parameters)
    assert Blob.of(other).digest != reward.details.entries
    with pytest.raises(MalformedMessage, match="not what the server states"):
        list(client_of(company, "ann", news=[News("settled", 1, reward)], fetch=lambda _: Blob.of(other)).work())


def test_a_reward_for_nothing_is_refused(convene: Convene) -> None:
    company = convene()
    rewards = company.complete()
    with pytest.raises(MalformedMessage, match="took no part"):
        list(client_of(company, "ann", news=[News("settled", 1, rewards["ann"])]).work())


def test_rounds_that_nobody_agreed_on_are_refused(convene: Convene) -> None:
    company = convene()
    with pytest.raises(MalformedMessage, match="not agreed on"):
        list(client_of(company, "ann", news=[News("opened", 4)]).work())


def test_a_client_that_waits_says_for_whom_in_every_round(convene: Convene) -> None:
    company = convene()
    heard: list[Event] = []
    own = company.client_seats["ann"]
    client = Client(replace(own, place=replace(own.place, observe=heard.append)), company.ports["ann"])
    work, awaited = client.work(), "server to settle round {}, once the other parties have handed in theirs"
    next(work)
    assert [event.kind for event in heard] == ["update-submitted", "round-awaited"]
    assert (heard[-1].round, heard[-1].fields) == (1, {"waits_for": awaited.format(1)})
    for other in NAMES[1:]:
        company.give(other)
    while len(heard) < 5:
        next(work)
    assert [event.kind for event in heard[2:]] == ["round-finished", "update-submitted", "round-awaited"]
    assert (heard[-1].round, heard[-1].fields) == (2, {"waits_for": awaited.format(2)})


def test_a_client_that_is_late_says_so_and_goes_on(convene: Convene) -> None:
    company = convene(min_clients=2)
    heard: list[Event] = []
    peer_context = company.client_seats["cleo"]
    peer_context = replace(peer_context, place=replace(peer_context.place, observe=heard.append))
    for client in NAMES[:2]:
        company.give(client)
    company.pass_deadline()
    news = [News("opened", 1), News("over", 0)]
    client = Client(peer_context, Lying(company.ports["cleo"], news=news))  # type: ignore[arg-type]
    list(client.work())
    assert [event.kind for event in heard] == ["round-missed"]
    assert [record.kind for record in peer_context.journal.records()] == ["contributed", "missed", "over"]
    # It asks nobody when it is started again.
    list(Client(peer_context, Lying(company.ports["cleo"], news=[News("opened", 9)])).work())  # type: ignore[arg-type]
