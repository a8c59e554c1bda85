"""The race: never worse than the first, whole for whom it leaves, and the same whenever checkpoints come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Int
from torch import Tensor

from comity.protocol.roles import run
from comity.protocols.assisted_learning import race
from comity.protocols.assisted_learning.algorithm import Loss, Selection, argmin
from comity.protocols.assisted_learning.choices import Objective
from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.protocols.assisted_learning.race import LEAST_SAMPLES, Race
from comity.transport.bindings.in_process import InProcessChannel
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.peer_connection import PeerConnection


@dataclass(frozen=True)
class Field:
    """Checkpoints as their receiver sees them, and how often it goes on while they come."""

    sender: list[float]
    losses: Float[Tensor, "checkpoints samples"]
    known: bool
    advances: list[int]
    block: int
    objective: Objective

    def totals(self) -> list[float]:
        """Every checkpoint's global loss, fully evaluated."""
        scale = 1 if self.objective == "sum" else self.losses.shape[1]
        return [sum + float(row.sum()) / scale for sum, row in zip(self.sender, self.losses, strict=True)]


@st.composite
def fields(draw: st.DrawFn, largest: int = 900) -> Field:
    checkpoints, samples = draw(st.integers(1, 6)), draw(st.integers(1, largest))
    draws = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    common = torch.rand(samples, generator=draws, dtype=torch.float64)
    own = torch.rand(checkpoints, samples, generator=draws, dtype=torch.float64)
    # From nearly equal to far apart.
    scale = draw(st.sampled_from([0.0, 0.01, 0.3, 3.0]))
    offsets = scale * torch.rand(checkpoints, 1, generator=draws, dtype=torch.float64)
    losses = common + 0.3 * own + offsets
    if draw(st.booleans()):
        losses[-1, draw(st.integers(0, samples - 1))] = float("inf")
    each = st.lists(st.integers(0, 40), min_size=checkpoints, max_size=checkpoints)
    sums = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(0, 20), min_size=checkpoints, max_size=checkpoints)
    block, objective = draw(st.integers(16, 300)), draw(st.sampled_from(["sum", "mean"]))
    return Field(draw(sums), losses, draw(st.booleans()), draw(each), block, objective)


def choose(field: Field) -> tuple[Selection, Int[Tensor, "checkpoints samples"]]:
    """Runs a race; returns its choice, and how often each sample of each checkpoint was evaluated."""
    evaluated = torch.zeros(field.losses.shape, dtype=torch.int64)

    def evaluate(index: int, samples: Int[Tensor, " block"]) -> Float[Tensor, " block"]:
        evaluated[index, samples] += 1
        return field.losses[index, samples]

    count = field.losses.shape[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    racing = Race(evaluate, order, block=field.block, objective=field.objective)
    for index, sum in enumerate(field.sender):
        known = field.losses[0].clone() if field.known and index == 0 else None
        racing.add(index, Loss(sum, 1), known)
        for _ in range(field.advances[index]):
            racing.advance()
    assert len(racing) == len(field.sender)
    return racing.select(), evaluated


@given(fields())
def test_the_choice_is_whole_and_never_worse_than_the_first(field: Field) -> None:
    selection, evaluated = choose(field)
    totals = field.totals()
    assert selection.total == totals[selection.index] <= totals[0]
    assert torch.equal(selection.losses, field.losses[selection.index])
    assert int(evaluated.max()) <= 1
    first = 1 if field.known else 0
    assert bool((evaluated[first:].sum(dim=1) >= min(LEAST_SAMPLES, field.losses.shape[1])).all())
    unknown = evaluated[first:]
    assert selection.work == pytest.approx(float(unknown.double().mean()) if len(unknown) else 0.0)


@given(fields(largest=LEAST_SAMPLES))
def test_on_few_samples_nobody_is_dropped(field: Field) -> None:
    selection, _ = choose(field)
    assert selection.index == argmin(field.totals())
    assert selection.work in {0.0, 1.0}


@given(fields())
def test_it_is_the_same_whenever_checkpoints_come(field: Field) -> None:
    one, other = choose(field)[0], choose(replace(field, advances=[0] * len(field.sender)))[0]
    assert (one.index, one.total, one.work) == (other.index, other.total, other.work)


def apart(gaps: list[float], noise: float = 0.5, samples: int = 4000) -> Field:
    draws = torch.Generator().manual_seed(0)
    common = 1 + torch.rand(samples, generator=draws, dtype=torch.float64)
    own = torch.rand(len(gaps), samples, generator=draws, dtype=torch.float64)
    losses = common + noise * own + torch.tensor(gaps, dtype=torch.float64)[:, None]
    return Field([0.0] * len(gaps), losses, True, [0] * len(gaps), 64, "sum")


def test_who_is_far_behind_drops_out_early() -> None:
    selection, evaluated = choose(apart([0.5, 0.4, 0.0, 0.3, 0.02, 0.6]))
    assert selection.index == 2
    seen = evaluated.sum(dim=1).tolist()
    # The first was known; those far behind are seen on the least number of samples, the rival on more.
    assert [seen[at] for at in (1, 3, 5)] == [LEAST_SAMPLES] * 3
    assert seen[0] == 0
    assert seen[2] == 4000
    assert LEAST_SAMPLES < seen[4] < 4000


def test_senders_losses_count() -> None:
    field = apart([0.0, 0.0, 0.0])
    selection, evaluated = choose(replace(field, sender=[900.0, 900.0, 0.0]))
    assert selection.index == 2
    assert evaluated.sum(dim=1).tolist() == [0, LEAST_SAMPLES, 4000]


def test_there_is_nothing_to_choose_from_nothing() -> None:
    racing = Race(lambda index, samples: samples.double(), torch.arange(2), block=1, objective="sum")
    assert not racing.advance()
    with pytest.raises(ValueError, match="checkpoint 0"):
        racing.select()


def test_a_session_that_races_is_the_same_over_the_network_and_never_rises(
    make_pair: Callable[..., Any],
    serve: Callable[..., Any],
    connect: Callable[..., PeerConnection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(race, "LEAST_SAMPLES", 16)
    terms = {"screening": "race", "evaluation_batch_size": 8}
    local, apart = make_pair(**terms), make_pair(**terms)
    helping = PROTOCOL.load().acceptor(local.provider.place, [local.provider])
    (one,) = run(PROTOCOL.load().connected([local.learner], [InProcessChannel(local.provider, helping)]))
    host = serve((apart.provider, PROTOCOL.load().acceptor(apart.provider.place, [apart.provider])))
    (other,) = run(
        PROTOCOL.load().connected(
            [apart.learner], [RemoteChannel(connect(host.address, contract=apart.learner.contract))]
        )
    )
    assert (one.digest, one.metrics) == (other.digest, other.metrics)
    losses = one.metrics["global_loss_by_round"]
    assert all(after <= before for before, after in pairwise(losses))
