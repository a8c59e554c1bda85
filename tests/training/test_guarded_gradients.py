"""A slice that sends sums of gradients over local steps, as a protocol that bargains with gradients does.

It brings nothing but what the guard, the task and the session have for all: rows that single samples show are sent as zero and
never made up for, a head of its own is not judged, and what is not judged does not leave.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from comity.contract import Contract
from comity.data import DataConfig, Splits, load_data
from comity.errors import PolicyRefusal
from comity.ledger.ledger import in_round
from comity.models import build
from comity.privacy.leak_guard import LeakGuard, Rules, Verdict
from comity.session.gate import EgressGate, Guards
from comity.session.policy import Policy
from comity.session.verdicts import Verdicts
from comity.store.memory_store import MemoryStore
from comity.tensors import Layout, State
from comity.training import OptimizerSpec, Secret, Supervised
from tests.privacy.attacks import Target

STEPS = 6
RATE = 0.1
TRUNK = ("1.weight", "1.bias")
"""What crosses; the head, 3.weight and 3.bias, is the provider's own."""


@pytest.fixture(scope="module")
def data() -> Splits:
    return load_data(DataConfig(source="digits"))


def task(data: Splits, *, batch: int = 64) -> Supervised:
    model = build("mlp", input_shape=(1, 8, 8), outputs=10, options={"hidden": 40}, seed=1)
    return Supervised(
        model,
        data,
        normalization=((), ()),
        batch_size=batch,
        evaluation_batch_size=64,
        secret=Secret(b"clinic", "s-1"),
        device=torch.device("cpu"),
        rules=Rules(fewest=1),
    )


def summed(provider: Supervised, state: State, round: int, kept: State | None) -> tuple[State, State, Verdict, State]:
    """The sum of gradients over local steps: as it is, as it is sent, what was found, and what is kept."""
    guard = provider.guard(state, kept, leaving=TRUNK)
    assert isinstance(guard, LeakGuard)
    begun = {name: tensor.clone() for name, tensor in state.items()}
    spec = OptimizerSpec("sgd", RATE)
    training = provider.trajectory(begun, spec, iterations=STEPS + 1, period=STEPS, round=round, guard=guard)
    *_, last = training
    made = {name: (begun[name] - last.state[name]) / RATE for name in TRUNK}
    released = guard.release_gradient(made)
    return made, released.state, released.verdict, guard.kept()


def rounds(data: Splits, *, batch: int, count: int = 12) -> list[tuple[State, State, Verdict, State]]:
    provider, kept = task(data, batch=batch), None
    state: dict[str, torch.Tensor] = {name: tensor.clone() for name, tensor in provider.initial_state.items()}
    found = []
    for round in range(1, count + 1):
        found.append(summed(provider, state, round, kept))
        kept = found[-1][3]
        # The learner steps with what it was sent.
        state |= {name: state[name] - 0.02 * tensor for name, tensor in found[-1][1].items()}
    return found


def test_rows_that_stay_are_zero_and_are_never_made_up_for(data: Splits) -> None:
    found = rounds(data, batch=16)
    assert sum(verdict.held_rows for _, _, verdict, _ in found) > 0
    for made, sent, verdict, _ in found:
        assert set(verdict.held) <= {"1"}
        assert verdict.rows == 40
        zero = (sent["1.weight"] == 0).all(1) & (sent["1.bias"] == 0)
        assert torch.equal(sent["1.weight"][~zero], made["1.weight"][~zero])
        assert int(zero.sum()) >= verdict.held_rows


def test_what_is_sent_in_a_row_shows_no_sample_where_what_was_made_does(data: Splits) -> None:
    digits, found = Target("digits", data), rounds(data, batch=16)

    def shown(which: int) -> int:
        rows = [each[which]["1.weight"] for each in found]
        rows += [after - before for before, after in pairwise(rows)]
        return len(digits.recovered(torch.cat(rows)))

    assert shown(0) > 0
    assert shown(1) == 0


def test_it_goes_on_from_what_was_kept(data: Splits) -> None:
    whole = rounds(data, batch=16, count=3)
    again = rounds(data, batch=16, count=3)
    for one, two in zip(whole, again, strict=True):
        assert one[2] == two[2]
        assert all(torch.equal(one[1][name], two[1][name]) for name in TRUNK)
    layout = Layout.of(whole[-1][3])
    kept = Layout.unpack(layout.pack(whole[-1][3]))
    assert kept.keys() == whole[-1][3].keys()


def test_a_gradient_leaves_with_a_verdict_alone(data: Splits, make_contract: Callable[..., Contract]) -> None:
    _, sent, verdict, _ = rounds(data, batch=64, count=1)[0]
    blob, store, kinds = Layout.of(sent).pack(sent), MemoryStore(), ("contract", "update")
    verdicts = Verdicts(store, make_contract().session, "hospital", ("update",))
    guards = Guards().with_inspectors(verdicts.inspectors)
    gate = EgressGate(make_contract(egress=kinds), Policy(egress=kinds), store, "hospital", guards)
    with pytest.raises(PolicyRefusal, match="not judged"):
        gate.send_blob(blob, "update", in_round(1))
    verdicts.record("update", in_round(1), blob.digest, verdict)
    gate.send_blob(blob, "update", in_round(1))
