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

from comity.contract import Contract, ModelSpec, PolicyGradientTerms
from comity.environments import Arena
from comity.environments.cartpole import CartPole
from comity.errors import MalformedMessage, NonFiniteValue
from comity.models import build
from comity.protocols.assisted_learning import codec
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.in_process import InProcessProvider
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import AssistedLearningTerms, Checkpoint, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.session.blobs import SessionBlobs
from comity.session.events import nobody
from comity.session.gate import EgressGate
from comity.session.journal import Journal
from comity.session.memory_store import MemoryStore
from comity.session.notary import Notary, record_opening
from comity.session.outcome import Outcome
from comity.session.policy import Policy
from comity.session.seat import Seat
from comity.tasks.reinforcement import reinforcement
from comity.tensors import Blob, Layout
from comity.training import PolicyGradient, Secret
from comity.transport.in_process import encoded
from comity.transport.protocol import run

EPISODES = 8
BEST_RETURN = CartPole().best_return(0.99)
POLES = {"learner": np.array([4.1, 4.3, 4.6]), "provider": np.array([0.2, 0.5, 0.8])}


@pytest.fixture
def make_seats(
    make_contract: Callable[..., Contract], make_member: Callable[..., Any], make_signer: Callable[..., Any]
) -> Callable[..., dict[str, Seat]]:
    """Makes both seats of the same session, each time anew; keywords are the rounds and the iterations of each."""
    return partial(_seats, make_contract, make_member, make_signer)


@pytest.fixture
def seats(make_seats: Callable[..., dict[str, Seat]]) -> dict[str, Seat]:
    return make_seats()


def _seats(
    make_contract: Callable[..., Contract],
    make_member: Callable[..., Any],
    make_signer: Callable[..., Any],
    rounds: int = 3,
    iterations: int = 40,
) -> dict[str, Seat]:
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
            Arena(CartPole(), POLES[own]),
            discount=0.99,
            baseline="mean",
            batch_size=32,
            evaluation_episodes=EPISODES,
            evaluation_batch_size=8,
            secret=Secret(names[own].encode(), contract.session),
        )
        store = MemoryStore()
        record_opening(store, contract, members[own], members[peer])
        made[own] = Seat(
            contract,
            members[own],
            members[peer],
            task,
            SessionBlobs(),
            Journal(store, contract.session),
            EgressGate(contract, Policy(), store, names[peer]),
            Notary(make_signer(names[own]), store, contract, members[peer]),
            nobody,
        )
    return made


def party(seat: Seat) -> Party:
    return Party(seat.task, seat.blobs, seat.journal, seat.contract, seat.own, seat.peer)


class Cheat(InProcessProvider):
    """A provider that is honest until the second round, in which it answers as it is told.

    Args:
        seats: Both seats.
        answer: Makes of an honest checkpoint, and of that of the first round in the same place, what it answers.
    """

    def __init__(self, seats: dict[str, Seat], answer: Callable[[Checkpoint, Checkpoint], Checkpoint]) -> None:
        role = Provider(party(seats["provider"]), seats["provider"].notary, nobody)
        super().__init__(seats["learner"], seats["provider"], role)
        self._answer = answer
        self._first: dict[int, tuple[Checkpoint, Blob]] = {}

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        blobs = self._learner.blobs
        for checkpoint in super().results(round, skip, meanwhile):
            if round == 1:
                self._first[checkpoint.index] = checkpoint, blobs.get(checkpoint.digest)
                yield checkpoint
                continue
            first, blob = self._first[checkpoint.index]
            blobs.add(blob)
            answered = self._answer(checkpoint, first)
            yield codec.checkpoint_from_proto(encoded(codec.checkpoint_to_proto(answered)))


def play(seats: dict[str, Seat], port: InProcessProvider) -> Outcome:
    return run(Learner(party(seats["learner"]), [(port, seats["learner"].notary)], nobody))[0]


def honest(seats: dict[str, Seat]) -> InProcessProvider:
    role = Provider(party(seats["provider"]), seats["provider"].notary, nobody)
    return InProcessProvider(seats["learner"], seats["provider"], role)


SHORT = {"rounds": 2, "iterations": 12}


def test_a_return_that_is_not_finite_is_refused_and_the_session_goes_on(
    make_seats: Callable[..., dict[str, Seat]],
) -> None:
    seats, others = make_seats(**SHORT), make_seats(**SHORT)
    bad = Cheat(seats, lambda checkpoint, _: replace(checkpoint, loss=Loss(math.nan, checkpoint.loss.count)))
    with pytest.raises(NonFiniteValue, match="the loss is not finite"):
        play(seats, bad)
    assert play(seats, honest(seats)).digest == play(others, honest(others)).digest


def test_the_trajectory_of_another_round_is_refused_before_anything_is_picked(
    make_seats: Callable[..., dict[str, Seat]],
) -> None:
    seats = make_seats(**SHORT)
    with pytest.raises(MalformedMessage, match="did not start round 2 from an offered checkpoint"):
        play(seats, Cheat(seats, lambda _, first: first))
    rounds = [each.round for each in seats["learner"].journal.records() if each.kind in {"picked", "finished"}]
    assert rounds == [1, 1], "what the first round came to stays"


@pytest.mark.slow
def test_a_session_never_loses_return(seats: dict[str, Seat]) -> None:
    learner = party(seats["learner"])
    (outcome,) = run(Learner(learner, [(honest(seats), seats["learner"].notary)], nobody))
    picks = [record.fields for record in seats["learner"].journal.records() if record.kind == "picked"]
    totals = [pick["total"] for pick in picks]
    assert totals == outcome.metrics["global_loss_by_round"]
    assert all(later <= earlier for earlier, later in itertools.pairwise(totals))
    assert totals[-1] < 0.5 * totals[0]
    returns = [BEST_RETURN - total / (2 * EPISODES * 3) for total in totals]
    assert outcome.metrics["global_return_by_round"] == pytest.approx(returns)
    # To the last bit what both tasks say of the final model, all of whose episodes were played in other company.
    assert learner.pick is not None
    final = seats["learner"].task.layout.view(seats["learner"].blobs.get(learner.pick.digest).data)
    assert totals[-1] == sum(float(seats[role].task.losses(final).sum()) for role in ("provider", "learner"))
