"""What a provider says of models that it is not to choose from: one suite for all that implement the port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from comity.errors import MalformedMessage, PolicyRefusal, ReceiptInvalid, RoundOutOfOrder, UnexpectedBlob, UnknownBlob
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement, Signer
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss
from comity.protocols.assisted_learning.calls import ProviderPort
from comity.protocols.assisted_learning.messages import (
    Assistance,
    Checkpoint,
    assessment_digest,
    trajectory_digest,
)
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider, ProviderPhase
from comity.session.contexts import PeerContext
from comity.session.events import ignore
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.transport.bindings.in_process import InProcessChannel
from comity.transport.bindings.remote import RemoteChannel

IMPLEMENTATIONS = ["provider", "in_process", "remote"]
TRAINS, ASSESSES = ("hospital", "lab"), ("lab", "hospital")
"""Acceptors of a session of which the first trains, so that the hospital does, or does not."""


def party(context: PeerContext) -> Party:
    return Party(context.task, context.blobs, context.journal, context.contract, context.own, context.peer)


@dataclass(frozen=True)
class Asked:
    """A session with the hospital behind the port, and models that a learner may ask about."""

    pair: Any
    provider: Provider
    port: Assistance
    models: list[Checkpoint]
    signer: Signer

    def ask(self, checkpoint: Checkpoint, round: int = 1) -> Loss:
        self.give(checkpoint)
        return self.port.assess(round, checkpoint.digest).result(20)

    def offer(self, checkpoints: Sequence[Checkpoint], round: int = 1) -> None:
        for checkpoint in checkpoints:
            self.give(checkpoint)
            self.port.offer(round, checkpoint)

    def give(self, checkpoint: Checkpoint) -> None:
        if isinstance(self.port, Provider):
            # Nothing carries blobs to a role that is called directly.
            self.pair.provider.blobs.add(self.pair.learner.blobs.get(checkpoint.digest))

    def sign(self, kind: Any, round: int, subject: bytes) -> SignedStatement:
        head = self.pair.learner_store.head("s-1", "hospital")
        return self.signer.state(kind, "s-1", self.pair.provider.contract.hash, in_round(round), subject.hex(), head)

    @property
    def joint(self) -> list[Checkpoint]:
        """The models as they are offered where there are several providers."""
        return [replace(each, loss=JointLoss.of([1.0 + each.index, 2.0])) for each in self.models]


@pytest.fixture
def asked(
    request: pytest.FixtureRequest, make_pair: Callable[..., Any], make_signer: Callable[[str], Signer]
) -> Callable[..., Asked]:
    def begin(implementation: str, acceptors: tuple[str, ...] = TRAINS, **terms: Any) -> Asked:
        pair = make_pair(rounds=2, acceptors=acceptors, **({"trainers": 1} | terms if len(acceptors) > 1 else terms))
        provider = Provider(party(pair.provider), pair.provider.receipt_book, ignore)
        port: Assistance = provider
        if implementation == "in_process":
            port = ProviderPort(pair.learner, InProcessChannel(pair.provider, provider))
        elif implementation == "remote":
            host = request.getfixturevalue("serve")((pair.provider, provider))
            connection = request.getfixturevalue("connect")(host.address, contract=pair.provider.contract)
            port = ProviderPort(pair.learner, RemoteChannel(connection))
        learner = party(pair.learner)
        start = learner.blobs.add(learner.task.layout.pack(learner.task.initial_state))
        return Asked(pair, provider, port, list(learner.train(start.digest, 1)), make_signer("clinic"))

    return begin


@pytest.fixture(params=IMPLEMENTATIONS)
def assessing(request: pytest.FixtureRequest, asked: Callable[..., Asked]) -> Asked:
    """The hospital does not train in the round."""
    return asked(request.param, ASSESSES)


@pytest.fixture(params=IMPLEMENTATIONS)
def training(request: pytest.FixtureRequest, asked: Callable[..., Asked]) -> Asked:
    """The hospital trains first, and the lab after it."""
    return asked(request.param, TRAINS, trainers=2)


def test_the_answer_is_the_loss_over_all_samples(assessing: Asked) -> None:
    context, (first, second, *_) = assessing.pair.provider, assessing.models
    for checkpoint in (first, second):
        state = context.task.layout.view(assessing.pair.learner.blobs.get(checkpoint.digest).data)
        assert assessing.ask(checkpoint) == Loss(float(context.task.losses(state).sum()), context.own.samples)


def test_the_same_question_has_the_same_answer_and_is_answered_once(assessing: Asked) -> None:
    first = assessing.models[0]
    answer = assessing.ask(first)
    assert assessing.ask(first) == answer
    assert [each.kind for each in assessing.pair.provider.journal.records()] == ["assessed"]
    # Who was killed says the same, by what is kept.
    context = assessing.pair.provider
    context.blobs.drop(first.digest)
    again = Provider(party(context), context.receipt_book, ignore)
    assert again.assess(1, first.digest).result() == answer


def test_answers_stand_in_both_ledgers(asked: Callable[..., Asked]) -> None:
    asking = asked("in_process", ASSESSES)
    for checkpoint in asking.models:
        asking.ask(checkpoint)
    losses = {each.digest: asking.ask(each) for each in asking.models}
    subject = assessment_digest(1, losses)
    asking.port.close(1, len(losses), asking.sign("request", 1, subject))
    asking.port.acknowledge(1, asking.sign("acknowledgement", 1, subject))
    for store, way in ((asking.pair.learner_store, "received"), (asking.pair.provider_store, "sent")):
        facts = [each.fact for each in store.entries() if each.fact.kind == "loss" and each.fact.direction == way]
        assert {each.subject for each in facts if each.matter == "delivered"} == {
            f"assessment {each.hex()}" for each in losses
        }
        assert all(each.units == in_round(1) for each in facts)


def test_no_more_is_answered_than_the_contract_has(assessing: Asked) -> None:
    most = assessing.provider._party.schedule.most_assessed(1)
    assert most >= len(assessing.models)
    layout, blobs = assessing.pair.learner.task.layout, assessing.pair.learner.blobs
    state = layout.view(blobs.get(assessing.models[0].digest).data)
    for number in range(most):
        other = blobs.add(layout.pack({name: tensor + number for name, tensor in state.items()}))
        assessing.ask(replace(assessing.models[0], digest=other.digest))
    more = blobs.add(layout.pack({name: tensor - 1 for name, tensor in state.items()}))
    with pytest.raises((RoundOutOfOrder, UnexpectedBlob)):
        assessing.ask(replace(assessing.models[0], digest=more.digest))
    # What was answered still is.
    assessing.ask(assessing.models[0])


@pytest.mark.parametrize("round", [0, 2, 3])
def test_other_rounds_are_not_on(assessing: Asked, round: int) -> None:
    with pytest.raises((RoundOutOfOrder, UnexpectedBlob)):
        assessing.ask(assessing.models[0], round)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_provider_alone_is_asked_nothing(asked: Callable[..., Asked], implementation: str) -> None:
    alone = asked(implementation, ("hospital",))
    with pytest.raises(RoundOutOfOrder, match="at most 0"):
        alone.ask(alone.models[0])
    with pytest.raises(MalformedMessage):
        alone.offer(alone.joint[:1])
        alone.port.close(1, 1, alone.sign("request", 1, trajectory_digest(1, alone.joint[:1])))


def test_a_model_that_was_not_sent_is_not_assessed(asked: Callable[..., Asked]) -> None:
    asking = asked("provider", ASSESSES)
    with pytest.raises(UnknownBlob):
        asking.provider.assess(1, asking.models[0].digest)


def test_what_stays_by_policy_is_not_said(asked: Callable[..., Asked]) -> None:
    asking = asked("in_process", ASSESSES)
    context = asking.pair.provider
    silent = replace(
        context, gate=EgressGate(context.contract, Policy(egress=("contract",)), asking.pair.provider_store, "clinic")
    )
    with pytest.raises(PolicyRefusal):
        ProviderPort(asking.pair.learner, InProcessChannel(silent, asking.provider)).assess(1, asking.models[0].digest)


def test_a_provider_answers_before_and_after_its_training_and_not_within(training: Asked) -> None:
    training.ask(training.models[1])
    training.offer(training.joint)
    training.port.close(1, len(training.models), training.sign("request", 1, trajectory_digest(1, training.joint)))
    if isinstance(training.port, Provider):
        # Over the wire the upload itself is refused, and the worker goes on meanwhile.
        with pytest.raises(RoundOutOfOrder):
            training.ask(training.models[2])
    made = list(training.port.results(1))
    assert training.provider.phase is ProviderPhase.FINISHED
    training.ask(training.models[2])
    training.port.acknowledge(1, training.sign("acknowledgement", 1, trajectory_digest(1, made)))


def test_the_loss_of_one_party_is_no_offer_to_one_of_several(training: Asked) -> None:
    with pytest.raises(MalformedMessage, match="one party's"):
        training.offer(training.models[:1])
        training.port.close(1, 1, training.sign("request", 1, trajectory_digest(1, training.models[:1])))


def test_a_trajectory_is_no_longer_than_the_contract_lets_any_be(training: Asked) -> None:
    longest = training.provider._party.schedule.longest
    first = training.joint[0]
    endless = [replace(first, index=index, iteration=5 * index) for index in range(longest + 1)]
    with pytest.raises(RoundOutOfOrder, match=f"index {longest}"):
        training.offer(endless)
        training.port.close(1, len(endless), training.sign("request", 1, trajectory_digest(1, endless)))


def test_a_round_without_training_is_charged_for_what_was_said(assessing: Asked) -> None:
    losses = {each.digest: assessing.ask(each) for each in assessing.models}
    with pytest.raises((RoundOutOfOrder, UnexpectedBlob, MalformedMessage)):
        assessing.offer(assessing.joint[:1])
        assessing.port.close(1, 1, assessing.sign("request", 1, trajectory_digest(1, assessing.joint[:1])))
    subject = assessment_digest(1, losses)
    with pytest.raises(RoundOutOfOrder, match="cannot be closed"):
        assessing.port.close(1, len(losses) - 1, assessing.sign("request", 1, subject))
    with pytest.raises(ReceiptInvalid):
        assessing.port.close(1, len(losses), assessing.sign("request", 1, bytes(32)))
    receipt = assessing.port.close(1, len(losses), assessing.sign("request", 1, subject))
    assert receipt.statement.subject == subject.hex()
    assert assessing.port.close(1, len(losses), assessing.sign("request", 1, subject)) == receipt
    assert list(assessing.port.results(1)) == []
    assessing.port.acknowledge(1, assessing.sign("acknowledgement", 1, subject))
    # It is over: nothing more is answered in it, and the next begins with its first question.
    assessing.ask(assessing.models[1], 2)
    assert assessing.provider.round == 2
    with pytest.raises((RoundOutOfOrder, UnexpectedBlob)):
        assessing.ask(assessing.models[2], 1)
