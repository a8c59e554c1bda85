"""Gradient rewards at the server: contributions against the Gram matrix and enumeration, a round, and rewards as bytes."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, prod

import torch
from jaxtyping import Float
from torch import Tensor

from comity.bench.machine import describe
from comity.bench.report import Report, Row, Target
from comity.bench.sampling import interleaved, one_thread
from comity.models import build
from comity.protocols.gradient_rewards import (
    Mechanism,
    ServerState,
    aggregate_round,
    cosine_gradient_shapley,
    gram,
    normalize_update,
    reward_fractions,
    sparsify,
    update_importance,
)
from comity.randomness import generator
from comity.tensors.sparse import decode, encode


@dataclass(frozen=True)
class Size:
    """What is worked on.

    Attributes:
        parameters: Entries of an update.
        many: Clients whose exact values are compared with the Gram matrix.
        few: Clients whose coalitions can be enumerated, and who take part in a round.
        repeats: Measurements of each.
    """

    parameters: int
    many: int
    few: int
    repeats: int


def run(*, quick: bool = False) -> Report:
    """Runs the benchmark.

    Args:
        quick: A hundredth of the parameters, six clients, two measurements.
    """
    size = Size(10_000, 6, 4, 2) if quick else Size(1_000_000, 20, 10, 11)
    machine = describe()
    rows: list[Row] = []
    targets: list[Target] = []
    with one_thread():
        for measure in (_against_gram, _against_enumeration, _round, _bytes):
            more_rows, more_targets = measure(size)
            rows += more_rows
            targets += more_targets
    return Report("rewards", machine, rows, targets)


def _against_gram(size: Size) -> tuple[list[Row], list[Target]]:
    updates = _updates(size.many, size.parameters)
    label = f"exact values of {size.many} clients"
    medians = interleaved(
        {
            "gram": _timed(lambda: gram(updates)),
            "plain": _timed(lambda: updates @ updates.T),
            "exact": _timed(lambda: cosine_gradient_shapley(gram(updates))),
        },
        repeats=size.repeats,
    )
    alone = Row(f"Gram matrix of {size.many} clients", 1e3 * medians["gram"], "ms")
    plain = Row(f"Gram matrix of {size.many} clients, one product in float32", 1e3 * medians["plain"], "ms").over(alone)
    exact = Row(label, 1e3 * medians["exact"], "ms").over(alone)
    return [alone, plain, exact], [
        Target.at_most(f"{label}, over the Gram matrix alone", bound, medians["exact"] / medians["gram"])
        for bound in (2, 1.5)
    ]


def _against_enumeration(size: Size) -> tuple[list[Row], list[Target]]:
    updates = _updates(size.few, size.parameters)
    weights = torch.full((size.few,), 1 / size.few)
    label = f"exact values of {size.few} clients"
    ours = interleaved({"ours": _timed(lambda: cosine_gradient_shapley(gram(updates), weights))}, repeats=size.repeats)[
        "ours"
    ]
    began = time.perf_counter()
    values = _by_definition(updates, weights)
    by_definition = time.perf_counter() - began
    began = time.perf_counter()
    _worths(updates, weights)
    once = time.perf_counter() - began
    difference = float((values - cosine_gradient_shapley(gram(updates), weights)).abs().max())
    enumeration = Row(f"{label}, enumerating coalitions for each client", 1e3 * by_definition, "ms")
    kept = Row(f"{label}, enumerating coalitions once and keeping their worth", 1e3 * once, "ms").over(enumeration)
    return [
        enumeration,
        kept,
        Row(label, 1e3 * ours, "ms").over(enumeration),
        Row(f"{label}, greatest difference from enumeration", difference, ""),
    ], [
        Target.at_least(f"{label}, speed over enumerating coalitions for each client", 1000, by_definition / ours),
        Target.at_least(f"{label}, speed over enumerating coalitions once", 1000, once / ours),
    ]


def _round(size: Size) -> tuple[list[Row], list[Target]]:
    shapes = _shapes(size)
    sizes = [prod(shape) for shape in shapes]
    parameters = sum(sizes)
    updates = normalize_update(_updates(size.few, parameters), 0.5)
    mechanism = Mechanism()
    state = aggregate_round(updates, ServerState.first([1] * size.few), mechanism).state
    tensors = [
        [part.view(shape) for part, shape in zip(update.split(sizes), shapes, strict=True)] for update in updates
    ]
    medians = interleaved(
        {
            "plain": _timed(lambda: _plain_round(tensors, state, mechanism)),
            "ours": _timed(lambda: aggregate_round(updates, state, mechanism)),
        },
        repeats=size.repeats,
    )
    label = f"a round of {size.few} clients, {parameters:,} parameters in {len(sizes)} tensors"
    plain = Row(f"{label}, top-k and mask for each client", 1e3 * medians["plain"], "ms")
    ours = Row(label, 1e3 * medians["ours"], "ms").over(plain)
    speed = medians["plain"] / medians["ours"]
    what = "a round, speed over top-k and mask for each client"
    return [plain, ours], [Target.at_least(what, bound, speed) for bound in (15, 25)]


def _bytes(size: Size) -> tuple[list[Row], list[Target]]:
    rows: list[Row] = []
    targets: list[Target] = []
    aggregate = _updates(1, size.parameters)[0]
    dense = 4 * size.parameters
    whole = Row("the whole aggregate", dense, "bytes")
    rows.append(whole)
    for share, bounds in ((0.05, (0.06, 0.055)), (0.5, (0.55, 0.5)), (0.95, ())):
        reward = sparsify(aggregate, share)
        data = encode(reward.indices, reward.values, reward.size)
        label = f"{share:.0%} of the aggregate"
        rows.append(Row(label, len(data), "bytes").over(whole))
        targets += [Target.at_most(f"{label}, bytes over dense", bound, len(data) / dense) for bound in bounds]
        medians = interleaved(
            {
                "encoded": _timed(lambda kept=reward: encode(kept.indices, kept.values, kept.size)),  # type: ignore[misc]
                "decoded": _timed(lambda data=data: decode(data, size.parameters)),  # type: ignore[misc]
            },
            repeats=size.repeats,
        )
        for done, seconds in medians.items():
            rows.append(Row(f"{label}, {done}", 1e-6 * dense / seconds, "MB/s"))
            targets.append(Target.at_least(f"{label}, {done}, MB/s of dense", 100, 1e-6 * dense / seconds))
    return rows, targets


def _updates(clients: int, parameters: int) -> Float[Tensor, "clients parameters"]:
    """Gaussian updates with something in common, later ones with less noise, as good data make them."""
    draws = generator(7)
    common = torch.randn(parameters, generator=draws)
    noise = torch.linspace(3, 1, clients)[:, None]
    return common + noise * torch.randn(clients, parameters, generator=draws)


def _shapes(size: Size) -> list[tuple[int, ...]]:
    """The tensors of a model: three convolutions and three linear layers, or less."""
    name, shape = ("cnn-cifar", (3, 32, 32)) if size.parameters >= 1_000_000 else ("lenet5", (1, 28, 28))
    model = build(name, input_shape=shape, outputs=10, options={}, seed=0)
    return [tuple(parameter.shape) for parameter in model.parameters()]


def _plain_round(tensors: list[list[Tensor]], state: ServerState, mechanism: Mechanism) -> list[list[Tensor]]:
    """What a round takes when every client is served by itself: its cosine, its largest entries of each tensor, its mask."""
    weights = state.importance.tolist()
    total = [torch.zeros_like(part) for part in tensors[0]]
    for weight, client in zip(weights, tensors, strict=True):
        for sum_of_part, update in zip(total, client, strict=True):
            sum_of_part.add_(weight * update)
    row = torch.cat([part.flatten() for part in total])
    cosines = [
        float(torch.cosine_similarity(torch.cat([part.flatten() for part in client]), row, dim=0)) for client in tensors
    ]
    importance = update_importance(state.importance, torch.tensor(cosines), mechanism.alpha, mechanism.floor)
    fractions = reward_fractions(importance, mechanism.beta).tolist()
    return [[_masked(part, fraction) for part in total] for fraction in fractions]


def _masked(tensor: Tensor, fraction: float) -> Tensor:
    flat = tensor.flatten()
    mask = torch.zeros_like(flat)
    mask[torch.topk(flat.abs(), math.floor(len(flat) * fraction)).indices] = 1
    return (flat * mask).view_as(tensor)


def _by_definition(updates: Tensor, weights: Tensor) -> Tensor:
    """Eq. (2) over coalitions, as it reads: for each client, the worth of every coalition with it and without it."""
    weighted = weights[:, None] * updates
    everybody = weighted.sum(dim=0)
    clients = range(len(updates))
    values = torch.zeros(len(updates), dtype=torch.float64)
    for client in clients:
        others = [other for other in clients if other != client]
        for size in range(len(updates)):
            for without in itertools.combinations(others, size):
                marginal = _worth(weighted, everybody, (*without, client)) - _worth(weighted, everybody, without)
                values[client] += marginal / (len(updates) * comb(len(others), size))
    return values


def _worths(updates: Tensor, weights: Tensor) -> list[float]:
    """Every coalition's worth, each once."""
    weighted = weights[:, None] * updates
    everybody = weighted.sum(dim=0)
    clients = range(len(updates))
    sizes = range(1, len(updates) + 1)
    return [_worth(weighted, everybody, each) for size in sizes for each in itertools.combinations(clients, size)]


def _worth(weighted: Tensor, everybody: Tensor, coalition: Sequence[int]) -> float:
    """The cosine of the sum of a coalition's updates with everybody's."""
    if not coalition:
        return 0.0
    return float(torch.cosine_similarity(weighted[list(coalition)].sum(dim=0), everybody, dim=0))


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def measure() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measure
