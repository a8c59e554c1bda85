"""Sessions with several providers: every choice is by the loss of all parties, and the global loss never rises."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from comity.contract import Contract, Membership
from comity.errors import MalformedMessage
from comity.ledger.ledger import bytes_by_kind
from comity.node.party import LocalParty
from comity.node.sessions.script import parse_script
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss, argmin, training_order
from comity.protocols.assisted_learning.calls import SERVICE, ProviderPort
from comity.protocols.assisted_learning.messages import Checkpoint
from comity.protocols.assisted_learning.schedule import Schedule
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.session.contexts import PeerContext
from comity.simulation.in_process import simulate

ROUNDS = 3
PROVIDERS = ("hospital", "lab", "office")
SCRIPT = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital", "lab", "office"]
rounds = 3
seed = 1
model = {{ name = "mlp", options = {{ hidden = 8 }} }}

[session.terms]
learning_rate = 0.01
batch_size = 16
iterations = 40
sampling_period = 4
evaluation_batch_size = 16
objective = "{objective}"
order = "{order}"
trainers = {trainers}

[party.clinic]
role = "learner"
data = {{ source = "digits", per_class = 16, partition = {{ name = "uniform", parties = 4, index = 0 }} }}

[party.hospital]
role = "provider"
data = {{ source = "digits", per_class = 16, partition = {{ name = "uniform", parties = 4, index = 1 }} }}

[party.lab]
role = "provider"
data = {{ source = "digits", per_class = 24, partition = {{ name = "uniform", parties = 4, index = 2 }} }}

[party.office]
role = "provider"
data = {{ source = "digits", per_class = 8, partition = {{ name = "uniform", parties = 4, index = 3 }} }}
"""
CASES = [
    {"objective": objective, "order": order, "trainers": trainers}
    for objective, order, trainers in [
        ("sum", "listed", 0),
        ("mean", "rotating", 0),
        ("sum", "rotating", 2),
        ("mean", "rotating", 1),
        ("sum", "listed", 1),
    ]
]


@dataclass
class Record:
    """What crossed in a session, by round and provider, and every party's own place in it."""

    offered: dict[tuple[int, str], list[Checkpoint]] = field(default_factory=dict)
    returned: dict[tuple[int, str], list[Checkpoint]] = field(default_factory=dict)
    assessed: dict[tuple[int, str], dict[bytes, Loss]] = field(default_factory=dict)
    contexts: dict[str, PeerContext] = field(default_factory=dict)
    models: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """A finished session, and what crossed in it."""

    case: dict[str, Any]
    record: Record
    metrics: dict[str, Any]

    def trainers(self, number: int) -> tuple[str, ...]:
        return training_order(PROVIDERS, number, self.case["order"], self.case["trainers"])

    def losses(self) -> Iterator[list[float]]:
        """Global losses in the order in which models were picked, round by round: before and after each one's training."""
        for number in range(ROUNDS):
            places = [PROVIDERS.index(name) for name in self.trainers(number + 1)]
            before, after = (self.metrics[f"loss_{which}_by_round"][number] for which in ("before", "after"))
            yield [value for place in places for value in (before[place], after[place])]


def recording(record: Record) -> Callable[[PeerContext, Any], ProviderPort]:
    """A port that passes everything on and keeps it."""

    class Recording(ProviderPort):
        def __init__(self, context: PeerContext, channel: Any) -> None:
            super().__init__(context, channel)
            other = channel._session.context
            record.contexts |= {context.own.party: context, other.own.party: other}
            self.name = other.own.party

        def assess(self, round: int, digest: bytes) -> Future[Loss]:
            answer = super().assess(round, digest)
            record.assessed.setdefault((round, self.name), {})[digest] = answer.result()
            self.keep(digest)
            return answer

        def offer(self, round: int, checkpoint: Checkpoint) -> None:
            record.offered.setdefault((round, self.name), []).append(checkpoint)
            self.keep(checkpoint.digest)
            super().offer(round, checkpoint)

        def results(self, round: int, skip: int = 0, *args: Any, **options: Any) -> Iterator[Checkpoint]:
            for checkpoint in super().results(round, skip, *args, **options):
                record.returned.setdefault((round, self.name), []).append(checkpoint)
                self.keep(checkpoint.digest)
                yield checkpoint

        def keep(self, digest: bytes) -> None:
            record.models[digest] = bytes(record.contexts["clinic"].blobs.get(digest).data)

    return Recording


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    record = Record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SERVICE, "client", recording(record))
        result, _ = simulate(parse_script(SCRIPT.format(**request.param)))
    assert result.ledger_verified
    metrics: dict[str, Any] = dict(result.metrics)
    return Session(request.param, record, metrics)


def test_the_global_loss_of_all_parties_never_rises(session: Session) -> None:
    """Proposition 1, leg by leg, with no tolerance."""
    chain = [value for losses in session.losses() for value in losses]
    assert all(after <= before for before, after in pairwise(chain))
    assert chain[-1] < chain[0]
    # What one leaves is what the next begins with, to the last bit.
    for losses in session.losses():
        assert losses[1:-1:2] == losses[2::2]
    assert [losses[-1] for losses in session.losses()] == session.metrics["global_loss_by_round"]


def test_a_trajectory_goes_from_one_to_the_next(session: Session) -> None:
    for number in range(1, ROUNDS + 1):
        names = session.trainers(number)
        for before, name in pairwise(names):
            made = session.record.returned[number, before]
            assert [each.digest for each in session.record.offered[number, name]] == [each.digest for each in made]
        for name in names:
            offered, returned = session.record.offered[number, name], session.record.returned[number, name]
            pick = session.metrics["pick_by_round"][number - 1][PROVIDERS.index(name)]
            assert returned[0].digest == offered[pick].digest
        for name in set(PROVIDERS) - set(names):
            assert (number, name) not in session.record.offered
            assert session.metrics["pick_by_round"][number - 1][PROVIDERS.index(name)] is None


def independent_loss(session: Session, party: str, digest: bytes) -> float:
    """A party's part of a model's global loss by other code: float64, all samples at once."""
    peer_context = session.record.contexts[party]
    data = peer_context.task._train_data
    state = {
        name: tensor.double()
        for name, tensor in peer_context.task.layout.view(bytearray(session.record.models[digest])).items()
    }
    with torch.no_grad():
        model = peer_context.task.model.double()
        try:
            logits = torch.func.functional_call(model, state, (data.inputs.double() * data.scale,))
        finally:
            model.float()
    return float(cross_entropy(logits, data.labels, reduction=session.case["objective"]))


def test_every_pick_is_the_argmin_over_all_parties(session: Session) -> None:
    parties = ("clinic", *PROVIDERS)
    for number in range(1, ROUNDS + 1):
        names = session.trainers(number)
        picks = {name: session.metrics["pick_by_round"][number - 1][PROVIDERS.index(name)] for name in names}
        trajectories = [(session.record.offered[number, name], picks[name]) for name in names]
        trajectories.append((session.record.returned[number, names[-1]], session.metrics["learner_picks"][number - 1]))
        for checkpoints, pick in trajectories:
            totals = [math.fsum(independent_loss(session, each, one.digest) for each in parties) for one in checkpoints]
            assert pick == argmin(totals)


def test_an_offer_holds_the_loss_of_all_others_and_of_nobody_alone(session: Session) -> None:
    for (_, name), checkpoints in session.record.offered.items():
        others = [party for party in ("clinic", *PROVIDERS) if party != name]
        for checkpoint in checkpoints:
            assert isinstance(checkpoint.loss, JointLoss)
            expected = math.fsum(independent_loss(session, party, checkpoint.digest) for party in others)
            assert math.fsum(checkpoint.loss.numbers) == pytest.approx(expected, rel=1e-5)


def test_nobody_is_asked_twice_or_about_what_it_knows(session: Session) -> None:
    for (number, name), assessed in session.record.assessed.items():
        trainers = session.trainers(number)
        # The first of a trajectory is one of the trajectory before.
        own = {each.digest for each in session.record.returned.get((number, name), [])[1:]}
        given = {each.digest for each in session.record.offered.get((number, name), [])[1:]}
        assert not assessed.keys() & (own | given)
        peer_context = session.record.contexts[name]
        most = Schedule(peer_context.contract, peer_context.own, [peer_context.peer]).most_assessed(number)
        assert len(assessed) <= most
        assert (most == 0) == (trainers == (name,))


def test_changes_add_up_by_provider(session: Session) -> None:
    for which in ("loss", "test"):
        by_round = session.metrics[f"{which}_change_by_round"]
        for place in range(len(PROVIDERS)):
            changes = [row[place] for row in by_round if row[place] is not None]
            assert session.metrics[f"{which}_change"][place] == (sum(changes) if changes else None)
    assert all(change is None or change <= 0 for change in session.metrics["loss_change"])


def test_both_sides_count_the_same_bytes() -> None:
    stores: dict[str, Any] = {}
    close = LocalParty.__init__

    def kept(self: LocalParty, name: str, *args: Any, **options: Any) -> None:
        close(self, name, *args, **options)
        stores[name] = self.store

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalParty, "__init__", kept)
        simulate(parse_script(SCRIPT.format(objective="sum", order="rotating", trainers=2)))
    for one, other in (("sent", "received"), ("received", "sent")):
        learner = bytes_by_kind(stores["clinic"].entries(), one)
        providers = [bytes_by_kind(stores[name].entries(), other) for name in PROVIDERS]
        assert learner == {kind: sum(each.get(kind, 0) for each in providers) for kind in learner}


values = st.lists(st.floats(0, 1e300), min_size=1, max_size=6)


@given(values, st.randoms(use_true_random=False))
def test_a_joint_loss_is_exact_whoever_adds_it_up(losses: list[float], random: Any) -> None:
    shuffled = [*losses]
    random.shuffle(shuffled)
    joint = JointLoss.of(losses)
    assert joint == JointLoss.of(shuffled)
    assert joint.numbers == JointLoss.of(joint.numbers).numbers
    *others, own = losses
    assert math.fsum((*JointLoss.of(others).numbers, own)) == math.fsum(losses)


@pytest.mark.parametrize(
    ("order", "trainers", "expected"),
    [
        ("listed", 0, ["abc", "abc", "abc", "abc"]),
        ("listed", 2, ["ab", "ab", "ab", "ab"]),
        ("rotating", 0, ["abc", "bca", "cab", "abc"]),
        ("rotating", 1, ["a", "b", "c", "a"]),
    ],
)
def test_who_trains_in_a_round(order: Any, trainers: int, expected: list[str]) -> None:
    assert ["".join(training_order("abc", round, order, trainers)) for round in range(1, 5)] == expected


def test_shares_of_the_iterations(
    make_contract: Callable[..., Contract], make_member: Callable[..., Membership]
) -> None:
    contract = make_contract(acceptors=("a", "b"), terms=AssistedLearningTerms(iterations=100, sampling_period=10))
    learner, a, b = make_member("l", "learner", 20), make_member("a", "provider", 20), make_member("b", "provider", 60)
    schedules = [Schedule(contract, *each) for each in ((learner, [a, b]), (a, [learner]), (b, [learner]))]
    assert [each.iterations for each in schedules] == [20, 50, 75]
    assert [len(schedules[0].sampled(name)) for name in "ab"] == [5, 8]
    # What a provider cannot know is bounded.
    assert schedules[1].sampled("l") == range(0, 99, 10)
    assert schedules[0].steps() == 3 * 10


@pytest.mark.parametrize("change", [{"acceptors": ("a", "a")}, {"terms": AssistedLearningTerms(trainers=3)}])
def test_contracts_that_cannot_be_kept_are_refused(
    make_contract: Callable[..., Contract], make_member: Callable[..., Membership], change: dict[str, Any]
) -> None:
    contract = make_contract(**({"acceptors": ("a", "b")} | change))
    with pytest.raises(MalformedMessage, match="trainers"):
        Schedule(contract, make_member("a", "provider", 20), [make_member("l", "learner", 20)])
