"""Labelling in turns: nothing protected is labelled, strategies begin alike, and peer study beats chance on digits."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest
import torch
from torch import nn

from comity.errors import InvalidValue
from comity.protocols.peer_study.labelling import Client, Plan, Stage, averaged, label_in_turns
from comity.protocols.peer_study.strategies import STRATEGIES, strategy
from comity.protocols.peer_study.students import Fitting
from tests.protocols.peer_study.scenes import MODELS, hasty, two_clients

SHORT = Plan(initial=5, budget=3, steps=2, rounds=1, fitting=Fitting(steps=4))


def small() -> list[Client]:
    """Two clients with 40 samples, 12 of them free."""
    return two_clients(0, samples=40, free=12)[0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_only_free_samples_are_labelled_each_once(name: str) -> None:
    clients = small()
    stages = label_in_turns(clients, MODELS, hasty(name), SHORT, seed=1)
    assert [stage.labels for stage in stages] == [10, 16, 22]
    for client, labelled in zip(clients, stages[-1].labelled, strict=True):
        assert len(labelled.indices.unique()) == len(labelled)
        assert not bool(client.protected[labelled.indices].any())
        assert torch.equal(labelled.labels, client.oracle.label(labelled.indices))


def test_it_can_be_repeated_and_strategies_begin_alike() -> None:
    peers, again, chance = (
        label_in_turns(small(), MODELS, strategy(name), SHORT, seed=1)
        for name in ("peer_study", "peer_study", "random")
    )
    assert all(same(one, other) for one, other in zip(peers, again, strict=True))
    assert same(peers[0], chance[0])
    assert not same(peers[-1], chance[-1])


def test_going_on_is_not_starting_afresh() -> None:
    afresh, on = (
        label_in_turns(small(), MODELS, strategy("random"), replace(SHORT, restart=restart), seed=1)
        for restart in (True, False)
    )
    assert same(afresh[0], on[0])
    assert torch.equal(afresh[-1].labelled[0].indices, on[-1].labelled[0].indices)
    assert not same(afresh[-1], on[-1])


def test_protected_samples_change_who_is_asked_for_and_no_model_directly() -> None:
    """By chance, where the selection does not follow from them, they leave no trace in the task model."""
    clients = small()
    others = [
        replace(client, pool=replace(client.pool, inputs=client.pool.inputs * ~client.protected.view(-1, 1, 1, 1)))
        for client in clients
    ]
    one, other = (label_in_turns(each, MODELS, strategy("random"), SHORT, seed=1) for each in (clients, others))
    assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_more_labels_than_free_samples_are_refused() -> None:
    with pytest.raises(InvalidValue, match="at most 12"):
        label_in_turns(small(), MODELS, strategy("random"), replace(SHORT, budget=4), seed=1)
    with pytest.raises(InvalidValue, match="Clients"):
        label_in_turns([], MODELS, strategy("random"), SHORT, seed=1)


def test_averages_are_weighted_and_of_buffers_too() -> None:
    models = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    for value, model in enumerate(models):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value * 4)
        model.num_batches_tracked.fill_(value)
    found = averaged(models, [1, 3]).state_dict()
    assert found["weight"].tolist() == [0.75, 0.75]
    assert found["running_mean"].tolist() == [3, 3]
    assert int(found["num_batches_tracked"]) == 1
    assert models[0].weight.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_digits_peer_study_is_better_than_chance() -> None:
    """Five seeds, 90 % protected, 10 to 50 labels a client: over the curve, against the mean of four random selections."""
    differences = []
    for seed in range(5):
        chance = mean(curve("random", seed, selection) for selection in range(4))
        differences.append(curve("peer_study", seed) - chance)
    assert mean(differences) > 0, differences
    assert sum(each > 0 for each in differences) >= 3, differences


def curve(name: str, seed: int, selection: int = 0) -> float:
    """The mean accuracy over all stages on digits, for one strategy."""
    clients, inputs, labels = two_clients(seed)
    stages = label_in_turns(clients, MODELS, strategy(name), Plan(), seed, selection=selection)
    with torch.no_grad():
        hits = [(stage.task_model(inputs).argmax(dim=1) == labels).double().mean() for stage in stages]
    return mean(map(float, hits))


def same(one: Stage, other: Stage) -> bool:
    """Whether two stages have the same model."""
    states = one.task_model.state_dict(), other.task_model.state_dict()
    return all(torch.equal(each, states[1][name]) for name, each in states[0].items())
