"""Models kept for clients are what the clients would have themselves, and nobody gets what it did not earn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from comity.errors import ComityError, InvalidValue, MalformedMessage, NonFiniteValue
from comity.protocols.gradient_rewards import Mechanism, ServerState, aggregate_round, normalize_update
from comity.protocols.gradient_rewards.kept_models import KeptModels

INITIAL = {
    "weight": torch.zeros(4, 3),
    "bias": torch.zeros(3),
    "running_mean": torch.zeros(3),
    "batches": torch.tensor(0),
}
PARAMETERS = ["weight", "bias"]


def kept_models(**options: object) -> KeptModels:
    return KeptModels(INITIAL, PARAMETERS, Mechanism(), **{"length": 0.5} | options)  # type: ignore[arg-type]


def trained(kept: KeptModels, client: int, round: int, *, alike: float = 1.0, seen: int = 10) -> dict[str, Tensor]:
    """A client's model after a step that all have in part, and buffers of its own."""
    common = torch.Generator().manual_seed(round)
    own = torch.Generator().manual_seed(1000 * client + round)
    state = dict(kept.model_of(client))
    for name in PARAMETERS:
        step = torch.randn(state[name].shape, generator=common)
        state[name] = state[name] + alike * step + 0.5 * torch.randn(state[name].shape, generator=own)
    return state | {"running_mean": torch.full((3,), float(client)), "batches": torch.tensor(seen)}


def flat(state: object) -> Tensor:
    return torch.cat([state[name].flatten() for name in PARAMETERS])  # type: ignore[index]


def test_rounds_are_those_of_the_algorithm_with_clients_that_add_their_rewards_themselves() -> None:
    kept, samples = kept_models(), {3: 100, 8: 50, 5: 200}
    clients = sorted(samples)
    state = ServerState.first([samples[each] for each in clients])
    models = {each: torch.zeros(15) for each in clients}
    server = torch.zeros(15)
    for round in range(1, 6):
        given = {each: trained(kept, each, round, alike=each / 5) for each in clients}
        updates = torch.stack([normalize_update(flat(given[each]) - models[each], 0.5) for each in clients])
        found = aggregate_round(updates, state, Mechanism())
        state, server = found.state, server + found.aggregate
        for each, reward in zip(clients, found.rewards, strict=True):
            models[each] = models[each] + reward.dense()
        for each in (8, 3, 5):
            kept.take(each, given[each], samples[each])
        paid = kept.settle()
        assert {each: paid[each].importance for each in clients} == dict(
            zip(clients, state.importance.tolist(), strict=True)
        )
        assert all(torch.equal(flat(kept.model_of(each)), models[each]) for each in clients)
        assert torch.equal(flat(kept.server_model), server)
    # All began alike, and none ended so.
    assert len({tuple(model.tolist()) for model in models.values()}) == 3
    assert kept.importance() == dict(zip(clients, state.importance.tolist(), strict=True))


def test_buffers_stay_each_clients_own_and_the_servers_are_means() -> None:
    kept = kept_models()
    for client in (1, 2, 3):
        kept.take(client, trained(kept, client, 1, seen=client * 10), 10)
    paid = kept.settle()
    for client in (1, 2, 3):
        assert kept.model_of(client)["running_mean"].tolist() == [client] * 3
        assert kept.model_of(client)["batches"] == client * 10
    mean = sum(each.importance * client for client, each in paid.items())
    assert kept.server_model["running_mean"].tolist() == pytest.approx([mean] * 3, rel=1e-6)
    assert kept.server_model["batches"].dtype == torch.int64
    assert int(kept.server_model["batches"]) == round(10 * mean)


def test_who_comes_under_a_new_name_begins_at_the_beginning_and_outweighs_nobody() -> None:
    kept = kept_models()
    for number in range(1, 4):
        for client in (1, 2, 3):
            kept.take(client, trained(kept, client, number), 10)
        kept.settle()
    before = kept.importance()
    assert kept.model_of(99) == INITIAL
    for client in (1, 2, 3, 99):
        kept.take(client, trained(kept, client, 4), 1e12 if client == 99 else 10)
    kept.settle()
    after = kept.importance()
    assert sum(after.values()) == pytest.approx(1)
    # It is valued by what it sent, as the others were in their first round.
    assert after[99] < 0.5
    assert min(after[client] / before[client] for client in before) > 0.5


def test_who_is_away_keeps_its_model_and_importance_and_who_left_holds_nobody_down() -> None:
    kept = kept_models()
    for client in (1, 2, 3):
        kept.take(client, trained(kept, client, 1, alike=4.0 if client == 1 else 0.2), 10)
    kept.settle()
    own, had = flat(kept.model_of(1)).clone(), kept.importance()
    for client in (2, 3):
        kept.take(client, trained(kept, client, 2), 10)
    paid = kept.settle()
    assert [*paid] == [2, 3]
    assert torch.equal(flat(kept.model_of(1)), own)
    assert kept.importance()[1] == pytest.approx(had[1])
    assert max(each.fraction for each in paid.values()) < 1
    for client in (2, 3):
        kept.take(client, trained(kept, client, 3), 10)
    assert max(each.fraction for each in kept.settle(away=[1]).values()) == 1
    # Back again, it is paid again.
    for client in (1, 2, 3):
        kept.take(client, trained(kept, client, 4), 10)
    assert kept.settle(away=[1])[1].kept > 0


def test_copies_are_found_and_count_as_one_where_that_is_so_chosen() -> None:
    importance = {}
    for weigh_as_one in (False, True):
        kept = kept_models(weigh_as_one=weigh_as_one)
        for number in range(1, 6):
            for client in (1, 2, 3):
                kept.take(client, trained(kept, client, number), 10)
            copied = flat(trained(kept, 3, number)) - flat(kept.model_of(3))
            copy = dict(kept.model_of(4))
            copy["weight"] = copy["weight"] + copied[:12].view(4, 3)
            copy["bias"] = copy["bias"] + copied[12:]
            kept.take(4, copy, 10)
            paid = kept.settle()
        assert paid[3].findings == paid[4].findings == ("a copy",)
        assert paid[1].findings == ()
        importance[weigh_as_one] = kept.importance()
    assert importance[True][4] < importance[False][4]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"weight": torch.zeros(3, 4)}, MalformedMessage),
        ({"weight": torch.zeros(4, 3, dtype=torch.float64)}, MalformedMessage),
        ({"weight": torch.full((4, 3), math.nan)}, NonFiniteValue),
        ({"weight": torch.zeros(4, 3), "bias": torch.zeros(3)}, MalformedMessage),
        ({"batches": None}, MalformedMessage),
    ],
)
def test_what_is_no_trained_model_is_refused_and_no_other_clients_loss(
    change: dict[str, Tensor | None], refusal: type[ComityError]
) -> None:
    kept = kept_models()
    for client in (1, 2, 3):
        kept.take(client, trained(kept, client, 1), 10)
    given = {**trained(kept, 4, 1), **change}
    with pytest.raises(refusal):
        kept.take(4, {name: tensor for name, tensor in given.items() if tensor is not None}, 10)
    assert sorted(kept.settle()) == [1, 2, 3]


def test_what_is_out_of_range_is_refused() -> None:
    kept = kept_models()
    for samples in (0, -1, math.inf, math.nan):
        with pytest.raises(InvalidValue, match="samples"):
            kept.take(1, trained(kept, 1, 1), samples)
    with pytest.raises(InvalidValue, match="none"):
        kept.settle()
    kept.take(1, trained(kept, 1, 1), 10)
    kept.forget()
    with pytest.raises(InvalidValue, match="none"):
        kept.settle()
    for wrong in ([], ["weights"], ["batches"]):
        with pytest.raises(InvalidValue, match="Parameters"):
            KeptModels(INITIAL, wrong, Mechanism(), length=0.5)


def test_the_state_keeps_its_sum_when_others_join() -> None:
    state = ServerState.first([1, 3]).joined(2)
    assert state.importance.tolist() == [0.125, 0.375, 0.25, 0.25]
    assert state.first_weights.tolist() == [0.125, 0.375, 0.25, 0.25]
    assert state.valued.tolist() == [False] * 4
    left = ServerState.first([1, 1, 2]).without([2]).joined(1)
    assert float(left.importance[[0, 1, 3]].sum()) == pytest.approx(1)
