"""AssistPG (Algorithm 2) by the roles of AssistDeep: what lacks of the best return takes the place of losses."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from comity.contract import Contract, ModelSpec, PolicyGradientTerms, TaskSpec
from comity.environments import Arena
from comity.environments.cartpole import CartPole
from comity.models import build
from comity.protocols.assisted_learning.in_process import InProcessProvider
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import AssistedLearningTerms
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.session.blobs import SessionBlobs
from comity.session.events import nobody
from comity.session.gate import EgressGate
from comity.session.journal import Journal
from comity.session.memory_store import MemoryStore
from comity.session.notary import Notary, record_opening
from comity.session.policy import Policy
from comity.session.seat import Seat
from comity.tensors import Layout
from comity.training import PolicyGradient, Secret
from comity.transport.protocol import run

EPISODES = 8
BEST_RETURN = CartPole().best_return(0.99)
POLES = {"learner": np.array([4.1, 4.3, 4.6]), "provider": np.array([0.2, 0.5, 0.8])}


@pytest.fixture
def seats(
    make_contract: Callable[..., Contract], make_member: Callable[..., Any], make_signer: Callable[..., Any]
) -> dict[str, Seat]:
    model = build("policy-mlp", input_shape=(4,), classes=2, options={"hidden": 4}, seed=3)
    contract = make_contract(
        rounds=3,
        model=ModelSpec(name="policy-mlp", signature=Layout.of(model.state_dict()).signature),
        task=TaskSpec(kind="reinforcement", environment="CartPole-v1", input_shape=(4,), classes=2),
        terms=AssistedLearningTerms(
            optimizer="adam",
            learning_rate=0.02,
            batch_size=32,
            evaluation_batch_size=8,
            iterations=40,
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


def test_a_session_never_loses_return(seats: dict[str, Seat]) -> None:
    learner, provider = (Party(s.task, s.blobs, s.journal, s.contract, s.own, s.peer) for s in seats.values())
    port = InProcessProvider(seats["learner"], seats["provider"], Provider(provider, seats["provider"].notary, nobody))
    (outcome,) = run(Learner(learner, [(port, seats["learner"].notary)], nobody))
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
