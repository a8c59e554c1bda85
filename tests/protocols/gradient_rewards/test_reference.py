"""The reference rule reproduces what the authors' own server code did with fixed updates, traced in float32.

`gradient_rewards.npz`: ten rounds of five clients with 4,388 parameters in nine tensors, for six degrees of altruism.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from comity.protocols.gradient_rewards import (
    Mechanism,
    RoundResult,
    ServerState,
    aggregate,
    aggregate_round,
    cosine_contribution,
    gram,
    normalize_update,
    reward_fractions,
    sparsify_for_all,
    update_importance,
)

Arrays = dict[str, NDArray[Any]]
ALTRUISM = [0.5, 1.0, 1.2, 1.5, 2.0, 1e7]
FLOAT32 = 2e-6


@pytest.fixture(scope="module")
def golden() -> Arrays:
    with np.load(Path(__file__).parent / "gradient_rewards.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def sizes(golden: Arrays) -> list[int]:
    return [prod(shape[:ndim].tolist()) for shape, ndim in zip(golden["shapes"], golden["ndim"], strict=True)]


def rounds(golden: Arrays, sizes: list[int], beta: float) -> list[RoundResult]:
    mechanism = Mechanism(alpha=float(golden["alpha"]), beta=beta, rule="reference")
    state = ServerState.first(golden["shard_sizes"].tolist())
    settled = []
    for raw in golden["raw_updates"]:
        updates = normalize_update(torch.from_numpy(raw), float(golden["Gamma"]))
        settled.append(aggregate_round(updates, state, mechanism, sizes=sizes))
        state = settled[-1].state
    return settled


def mask(golden: Arrays, case: int, round: int, client: int) -> NDArray[np.bool_]:
    size = golden["raw_updates"].shape[2]
    return np.unpackbits(golden[f"b{case}_masks"][round, client])[:size].astype(np.bool_)


def test_the_trace_has_these_degrees_of_altruism(golden: Arrays) -> None:
    assert golden["betas"].tolist() == ALTRUISM


@pytest.mark.parametrize("case", range(len(ALTRUISM)))
def test_whole_sessions_are_reproduced(golden: Arrays, sizes: list[int], case: int) -> None:
    settled = rounds(golden, sizes, ALTRUISM[case])
    server = torch.zeros(sum(sizes))
    agents = torch.zeros(5, sum(sizes))
    for round, each in enumerate(settled):
        assert each.aggregate.numpy() == pytest.approx(golden["agg"][round], abs=FLOAT32)
        assert each.contribution.numpy() == pytest.approx(golden[f"b{case}_phis"][round], abs=FLOAT32)
        assert each.state.importance.numpy() == pytest.approx(golden[f"b{case}_rs"][round], abs=FLOAT32)
        assert each.fractions.numpy() == pytest.approx(golden[f"b{case}_q"][round], abs=FLOAT32)
        server += each.aggregate
        for client, reward in enumerate(each.rewards):
            dense = reward.dense()
            agents[client] += dense
            assert np.array_equal((dense != 0).numpy(), mask(golden, case, round, client))
            kept = [int((part != 0).sum()) for part in dense.split(sizes)]
            assert kept == golden[f"b{case}_kept"][round, client].tolist()
            cosine = torch.cosine_similarity(dense.double(), each.aggregate.double(), dim=0)
            assert float(cosine) == pytest.approx(golden[f"b{case}_reward_cos"][round, client], abs=FLOAT32)
    assert server.numpy() == pytest.approx(golden[f"b{case}_server"], abs=FLOAT32)
    assert agents.numpy() == pytest.approx(golden[f"b{case}_agents"], abs=FLOAT32)


@pytest.mark.parametrize("case", range(len(ALTRUISM)))
def test_each_step_is_reproduced_from_the_traced_one_before(golden: Arrays, sizes: list[int], case: int) -> None:
    shares = torch.from_numpy(golden["shard_sizes"] / golden["shard_sizes"].sum())
    for round, raw in enumerate(golden["raw_updates"]):
        past = torch.from_numpy(golden[f"b{case}_rs"][round - 1]) if round else torch.zeros(5)
        weights = past if round else shares
        updates = normalize_update(torch.from_numpy(raw), float(golden["Gamma"]))
        assert aggregate(updates, weights).numpy() == pytest.approx(golden["agg"][round], abs=FLOAT32)
        contribution = cosine_contribution(gram(updates), weights)
        assert contribution.numpy() == pytest.approx(golden[f"b{case}_phis"][round], abs=FLOAT32)
        importance = update_importance(past, contribution, float(golden["alpha"]), rule="reference")
        assert importance.numpy() == pytest.approx(golden[f"b{case}_rs"][round], abs=FLOAT32)
        fractions = reward_fractions(torch.from_numpy(golden[f"b{case}_rs"][round]), ALTRUISM[case])
        assert fractions.numpy() == pytest.approx(golden[f"b{case}_q"][round], abs=FLOAT32)
        total = torch.from_numpy(golden["agg"][round])
        rewards = sparsify_for_all(total, golden[f"b{case}_q"][round].tolist(), rule="reference", sizes=sizes)
        for client, reward in enumerate(rewards):
            assert np.array_equal(np.flatnonzero(mask(golden, case, round, client)), reward.indices.numpy())


def test_full_rewards_of_the_paper_are_the_aggregate_where_the_reference_loses_an_entry_a_tensor(
    golden: Arrays, sizes: list[int]
) -> None:
    total = torch.from_numpy(golden["agg"][0])
    paper, reference = (sparsify_for_all(total, [1.0], rule=rule, sizes=sizes)[0] for rule in ("paper", "reference"))
    assert torch.equal(paper.dense(), total)
    assert len(paper.indices) - len(reference.indices) == len(sizes)
