"""Proposition 1 on trained sessions, from the messages alone: the global loss never rises, to the last bit."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from comity.blobs.session_blobs import SessionBlobs
from comity.data import Dataset
from comity.ledger.receipts import SignedStatement
from comity.models import build
from comity.protocol.roles import run
from comity.protocols.assisted_learning.algorithm import Loss, argmin
from comity.protocols.assisted_learning.calls import ProviderPort
from comity.protocols.assisted_learning.choices import Objective
from comity.protocols.assisted_learning.learner import Learner
from comity.protocols.assisted_learning.messages import Assistance, Checkpoint, idle
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.session.contexts import PeerContext
from comity.session.events import ignore
from comity.session.outcome import Outcome
from comity.transport.bindings.in_process import InProcessChannel

ROUNDS = 4


class Recording:
    """Passes everything on and keeps the checkpoints of both directions, by round, and their models."""

    def __init__(self, port: Assistance, blobs: SessionBlobs) -> None:
        self._port = port
        self._blobs = blobs
        self.models: dict[bytes, bytes] = {}
        self.offered: dict[int, list[Checkpoint]] = defaultdict(list)
        self.returned: dict[int, list[Checkpoint]] = defaultdict(list)

    def assess(self, round: int, digest: bytes) -> Future[Loss]:
        return self._port.assess(round, digest)

    def offer(self, round: int, checkpoint: Checkpoint) -> None:
        self._keep(self.offered[round], checkpoint)
        self._port.offer(round, checkpoint)

    def close(self, round: int, count: int, request: SignedStatement) -> SignedStatement:
        return self._port.close(round, count, request)

    def acknowledge(self, round: int, acknowledgement: SignedStatement) -> None:
        self._port.acknowledge(round, acknowledgement)

    def results(self, round: int, skip: int = 0, meanwhile: Callable[[], bool] = idle) -> Iterator[Checkpoint]:
        for checkpoint in self._port.results(round, skip, meanwhile):
            self._keep(self.returned[round], checkpoint)
            yield checkpoint

    def _keep(self, trajectory: list[Checkpoint], checkpoint: Checkpoint) -> None:
        trajectory.append(checkpoint)
        self.models[checkpoint.digest] = bytes(self._blobs.get(checkpoint.digest).data)


@dataclass(frozen=True)
class Session:
    """A finished session and everything that crossed in it."""

    learner: PeerContext
    provider: PeerContext
    model: nn.Module
    objective: Objective
    offered: dict[int, list[Checkpoint]]
    returned: dict[int, list[Checkpoint]]
    models: dict[bytes, bytes]
    outcome: Outcome

    def metric(self, name: str) -> list[Any]:
        value = self.outcome.metrics[name]
        assert isinstance(value, list)
        return value


def batch_norm() -> nn.Module:
    """A model whose buffers decide its losses, one of them an integer."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))


def mlp() -> nn.Module:
    return build("mlp", input_shape=(1, 8, 8), outputs=10, options={"hidden": 12}, seed=3)


CASES = [
    (model, objective, gamma) for model in (mlp, batch_norm) for objective in ("sum", "mean") for gamma in (0, 0.3)
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}-{case[2]}")
def session(request: pytest.FixtureRequest, make_pair: Callable[..., Any]) -> Session:
    make_model, objective, gamma = request.param
    model = make_model()
    pair = make_pair(model=model, gamma=gamma, rounds=ROUNDS, objective=objective, iterations=60, sampling_period=4)
    learner, provider = (
        Party(context.task, context.blobs, context.journal, context.contract, context.own, context.peer)
        for context in (pair.learner, pair.provider)
    )
    port = Recording(
        ProviderPort(
            pair.learner,
            InProcessChannel(pair.provider, Provider(provider, pair.provider.receipt_book, ignore)),
        ),
        pair.learner.blobs,
    )
    (outcome,) = run(Learner(learner, [(port, pair.learner.receipt_book)], ignore))
    return Session(pair.learner, pair.provider, model, objective, port.offered, port.returned, port.models, outcome)


def own_loss(context: PeerContext, model: bytes) -> Loss:
    """A party's own evaluation of a model, as it would state it."""
    return Loss(float(context.task.losses(context.task.layout.view(bytearray(model))).sum()), context.task.samples)


def global_losses(session: Session) -> tuple[list[float], list[float]]:
    """Global losses of θ^0 … θ^R, and of the models θ_0^(P),1 … θ_0^(P),R that the provider started from.

    Each is put together from what the two parties said of the model. Where no message tells what one of them thinks of
    it, which is at the two ends of the session, that party is asked.
    """

    def added(learner: Loss, provider: Loss) -> float:
        return learner.value(session.objective) + provider.value(session.objective)

    initial = session.offered[1][0]
    rounds = [added(initial.loss, own_loss(session.provider, session.models[initial.digest]))]
    starts = []
    for number in range(1, ROUNDS + 1):
        start = session.returned[number][0]
        picked = session.returned[number][session.metric("learner_picks")[number - 1]]
        said = next(each.loss for each in session.offered[number] if each.digest == start.digest)
        starts.append(added(said, start.loss))
        if number < ROUNDS:
            following = session.offered[number + 1][0]
            assert following.digest == picked.digest
            rounds.append(added(following.loss, picked.loss))
        else:
            rounds.append(session.metric("global_loss_by_round")[-1])
    return rounds, starts


def assert_monotone_global_loss(rounds: Sequence[float], starts: Sequence[float]) -> None:
    """Proposition 1: global(θ^r) <= global(θ_0^(P),r) <= global(θ^(r-1)), with no tolerance."""
    for before, start, after in zip(rounds[:-1], starts, rounds[1:], strict=True):
        assert after <= start <= before


def test_the_global_loss_never_rises(session: Session) -> None:
    rounds, starts = global_losses(session)
    assert_monotone_global_loss(rounds, starts)
    # The session helped, so that there was something to see.
    assert any(session.metric("learner_picks"))
    assert rounds[-1] < rounds[0]


def test_the_learner_reports_the_losses_that_the_messages_add_up_to(session: Session) -> None:
    rounds, _ = global_losses(session)
    assert session.metric("global_loss_by_round") == rounds[1:]


def independent_loss(session: Session, context: PeerContext, digest: bytes) -> float:
    """A party's loss of a model by other code: float64, all samples at once, the file read by safetensors."""
    data: Dataset = context.task._train_data
    model = copy.deepcopy(session.model)
    model.load_state_dict(safetensors.torch.load(session.models[digest]))
    model = model.double().eval()
    with torch.no_grad():
        logits = model(data.inputs.double() * data.scale)
        return float(cross_entropy(logits, data.labels, reduction=session.objective))


@pytest.mark.parametrize("direction", ["offered", "returned"])
def test_every_pick_is_the_argmin_of_a_full_evaluation(session: Session, direction: str) -> None:
    contexts = session.learner, session.provider
    trajectories: dict[int, list[Checkpoint]] = getattr(session, direction)
    picks = session.metric("provider_picks" if direction == "offered" else "learner_picks")
    for number, checkpoints in trajectories.items():
        totals = [sum(independent_loss(session, context, each.digest) for context in contexts) for each in checkpoints]
        assert picks[number - 1] == argmin(totals)


def test_trajectories_begin_with_the_model_that_they_start_from(session: Session) -> None:
    current = session.learner.task.layout.pack(session.learner.task.initial_state).digest
    for number in range(1, ROUNDS + 1):
        offered, returned = session.offered[number], session.returned[number]
        for trajectory in (offered, returned):
            assert [each.iteration for each in trajectory] == list(range(0, 4 * len(trajectory), 4))
            assert [each.index for each in trajectory] == list(range(len(trajectory)))
        assert offered[0].digest == current
        picked = offered[session.metric("provider_picks")[number - 1]]
        assert returned[0].digest == picked.digest
        assert session.models[returned[0].digest] == session.models[picked.digest]
        current = returned[session.metric("learner_picks")[number - 1]].digest


def test_the_outcome_is_the_best_model_of_all_rounds(session: Session) -> None:
    losses = session.metric("global_loss_by_round")
    best = argmin(losses)
    picked = session.returned[best + 1][session.metric("learner_picks")[best]]
    (model,) = session.outcome.models
    assert bytes(model.data) == session.models[picked.digest]
    assert session.outcome.digest == picked.digest.hex()
    assert session.outcome.metrics["assisted"] == session.metric("assisted_by_round")[best]
