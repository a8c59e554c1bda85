"""AssistPG (Algorithm 2) by the roles of AssistDeep: what lacks of the best return takes the place of losses."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract, ModelSpec
from comity.environments import EnvironmentSet
from comity.environments.cartpole import CartPole
from comity.errors import MalformedMessage, NonFiniteValue
from comity.models import build
from comity.protocol.roles import run
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.calls import ProviderPort
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Checkpoint, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.protocols.assisted_learning.terms import AssistedLearningTerms, PolicyGradientTerms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import ignore
from comity.session.gate import EgressGate
from comity.session.outcome import Outcome
from comity.session.policy import Policy
from comity.session.receipt_book import ReceiptBook, record_opening
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.tasks.reinforcement import reinforcement
from comity.tensors import Blob, Layout
from comity.training import PolicyGradient, Secret
from comity.transport.bindings.in_process import InProcessChannel, encoded

EPISODES = 8
BEST_RETURN = CartPole().best_return(0.99)
POLES = {"learner": np.array([4.1, 4.3, 4.6]), "provider": np.array([0.2, 0.5, 0.8])}


@pytest.fixture
def make_seats(
    make_contract: Callable[..., Contract], make_member: Callable[..., Any], make_signer: Callable[..., Any]
) -> Callable[..., dict[str, PeerContext]]:
    """Makes both contexts of the same session, each time anew; keywords are the rounds and the iterations of each."""
    return partial(_contexts, make_contract, make_member, make_signer)


@pytest.fixture
def contexts(make_seats: Callable[..., dict[str, PeerContext]]) -> dict[str, PeerContext]:
    return make_seats()


def _contexts(
    make_contract: Callable[..., Contract],
    make_member: Callable[..., Any],
    make_signer: Callable[..., Any],
    rounds: int = 3,
    iterations: int = 40,
) -> dict[str, PeerContext]:
    model = build("policy-mlp", input_shape=(4,), outputs=2, options={"hidden": 4}, seed=3)
    contract = make_contract(
        rounds=rounds,
        models={"model": ModelSpec(name="policy-mlp", signature=Layout.of(model.state_dict()).signature)},
        task=reinforcement("CartPole-v1", 4, 2),
        terms=AssistedLearningTerms(
            optimizer="adam",
            learning_rate=0.02,
            batch_size=32,
            evaluation_batch_size=8,
            iterations=iterations,
            sampling_period=4,
            policy_gradient=PolicyGradientTerms(best_return=BEST_RETURN),
        ),
    )
    names = {"learner": "clinic", "provider": "hospital"}
    members = {role: make_member(name, role, EPISODES * 3) for role, name in names.items()}
    made = {}
    for own, peer in (("learner", "provider"), ("provider", "learner")):
        task = PolicyGradient(
            copy.deepcopy(model),
            EnvironmentSet(CartPole(), POLES[own]),
            discount=0.99,
            baseline="mean",
            batch_size=32,
            evaluation_episodes=EPISODES,
            evaluation_batch_size=8,
            secret=Secret(names[own].encode(), contract.session),
        )
        store = MemoryStore()
        record_opening(store, contract, members[own], members[peer])
        blobs, journal, waits = SessionBlobs(), Journal(store, contract.session), Waits(store, contract.session)
        made[own] = PeerContext(
            SessionContext(contract, members[own], task, blobs, journal, ignore, waits),
            members[peer],
            blobs,
            EgressGate(contract, Policy(), store, names[peer]),
            ReceiptBook(make_signer(names[own]), store, contract, members[peer]),
        )
    return made


def party(context: PeerContext) -> Party:
    return Party(context.task, context.blobs, context.journal, context.contract, context.own, context.peer)


class Cheat(ProviderPort):
    """A provider that is honest until the second round, in which it answers as it is told.

    Args:
        contexts: Both contexts.
        answer: Makes of an honest checkpoint, and of that of the first round in the same place, what it answers.
    """

    def __init__(
        self, contexts: dict[str, PeerContext], answer: Callable[[Checkpoint, Checkpoint], Checkpoint]
    ) -> None:
        role = Provider(party(contexts["provider"]), contexts["provider"].receipt_book, ignore)
        super().__init__(contexts["learner"], InProcessChannel(contexts["provider"], role))
        self._answer = answer
        self._first: dict[int, tuple[Checkpoint, Blob]] = {}

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        blobs = self._peer.blobs
        for checkpoint in super().results(round, skip, meanwhile):
            if round == 1:
                self._first[checkpoint.index] = checkpoint, blobs.get(checkpoint.digest)
                yield checkpoint
                continue
            first, blob = self._first[checkpoint.index]
            blobs.add(blob)
            answered = self._answer(checkpoint, first)
            yield codec.checkpoint_from_proto(encoded(codec.checkpoint_to_proto(answered)))


def play(contexts: dict[str, PeerContext], port: ProviderPort) -> Outcome:
    return run(Learner(party(contexts["learner"]), [(port, contexts["learner"].receipt_book)], ignore))[0]


def honest(contexts: dict[str, PeerContext]) -> ProviderPort:
    role = Provider(party(contexts["provider"]), contexts["provider"].receipt_book, ignore)
    return ProviderPort(contexts["learner"], InProcessChannel(contexts["provider"], role))


SHORT = {"rounds": 2, "iterations": 12}


def test_a_return_that_is_not_finite_is_refused_and_the_session_goes_on(
    make_seats: Callable[..., dict[str, PeerContext]],
) -> None:
    contexts, others = make_seats(**SHORT), make_seats(**SHORT)
    bad = Cheat(contexts, lambda checkpoint, _: replace(checkpoint, loss=Loss(math.nan, checkpoint.loss.count)))
    with pytest.raises(NonFiniteValue, match="the loss is not finite"):
        play(contexts, bad)
    assert play(contexts, honest(contexts)).digest == play(others, honest(others)).digest


def test_the_trajectory_of_another_round_is_refused_before_anything_is_picked(
    make_seats: Callable[..., dict[str, PeerContext]],
) -> None:
    contexts = make_seats(**SHORT)
    with pytest.raises(MalformedMessage, match="did not start round 2 from an offered checkpoint"):
        play(contexts, Cheat(contexts, lambda _, first: first))
    rounds = [each.round for each in contexts["learner"].journal.records() if each.kind in {"picked", "finished"}]
    assert rounds == [1, 1], "what the first round came to stays"


@pytest.mark.slow
def test_a_session_never_loses_return(contexts: dict[str, PeerContext]) -> None:
    learner = party(contexts["learner"])
    (outcome,) = run(Learner(learner, [(honest(contexts), contexts["learner"].receipt_book)], ignore))
    picks = [record.fields for record in contexts["learner"].journal.records() if record.kind == "picked"]
    totals = [pick["total"] for pick in picks]
    assert totals == outcome.metrics["global_loss_by_round"]
    assert all(later <= earlier for earlier, later in itertools.pairwise(totals))
    assert totals[-1] < 0.5 * totals[0]
    returns = [BEST_RETURN - total / (2 * EPISODES * 3) for total in totals]
    assert outcome.metrics["global_return_by_round"] == pytest.approx(returns)
    # To the last bit what both tasks say of the final model, all of whose episodes were played in other company.
    assert learner.choosing.pick is not None
    final = contexts["learner"].task.layout.view(contexts["learner"].blobs.get(learner.choosing.pick.digest).data)
    assert totals[-1] == sum(float(contexts[role].task.losses(final).sum()) for role in ("provider", "learner"))
