"""What each of the strategies that peer study is compared with is for, on samples of two numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from comity.errors import InvalidValue
from comity.protocols.peer_study.pool import TensorPool
from comity.protocols.peer_study.strategies import Question, choose, strategy
from comity.protocols.peer_study.strategies.diverse import central, plus_plus
from comity.protocols.peer_study.strategies.features import features
from comity.protocols.peer_study.students import Labelled

seeds = st.integers(0, 2**32)


def by_side() -> nn.Module:
    """Takes a sample for class 1 where its first number is above 0."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        model.bias.zero_()
    return model


def question(points: Tensor, labels: list[int], budget: int, model: nn.Module | None = None) -> Question:
    """The first points are labelled, the others are candidates."""
    labelled = Labelled(torch.arange(len(labels)), torch.tensor(labels))
    rest = torch.arange(len(labels), len(points))
    return Question(TensorPool(points), rest, labelled, budget, 2, model or by_side())


def test_entropy_asks_where_the_task_model_is_least_sure() -> None:
    points = torch.tensor([[5.0, 0], [-5, 0], [3, 0], [0.1, 9], [-2, 0], [-0.2, 1]])
    assert choose(strategy("entropy"), question(points, [1, 0], 2)).tolist() == [3, 5]


def test_the_core_set_is_far_from_what_is_known_and_apart() -> None:
    points = torch.tensor([[0.0, 0], [0, 1], [9, 0], [9.1, 0], [0, 7], [1, 1]])
    assert choose(strategy("core_set"), question(points, [0, 0], 2)).tolist() == [3, 4]
    # With nothing known, from the middle of all to what is farthest from there.
    assert choose(strategy("core_set"), question(points, [], 2)).tolist() == [5, 3]


@given(seeds, st.integers(2, 12), st.integers(1, 8))
def test_the_core_set_covers_at_most_twice_as_badly_as_the_best(seed: int, samples: int, budget: int) -> None:
    points = torch.randn(samples + 1, 2, generator=torch.Generator().manual_seed(seed))
    budget = min(budget, samples, 2)
    chosen = choose(strategy("core_set"), question(points, [0], budget))

    def radius(centres: list[int]) -> float:
        return float(torch.cdist(points, points[[0, *centres]]).amin(dim=1).max())

    best = min(radius([a, b][:budget]) for a in range(1, samples + 1) for b in range(1, samples + 1))
    assert radius(chosen.tolist()) <= 2 * best + 1e-5


@given(seeds, st.integers(1, 10))
def test_badge_chooses_as_if_the_products_were_formed(seed: int, count: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    errors, hidden = (
        torch.randn(10, 3, generator=draws, dtype=torch.float64),
        torch.randn(10, 4, generator=draws, dtype=torch.float64),
    )
    products = (errors[:, :, None] * hidden[:, None, :]).flatten(start_dim=1)
    generator = torch.Generator().manual_seed(seed + 1)
    expected = [int(products.norm(dim=1).argmax())]
    while len(expected) < count:
        chances = torch.cdist(products, products[expected]).amin(dim=1).square()
        chances[expected] = 0
        expected.append(int(torch.multinomial(chances, 1, generator=generator)))

    found = plus_plus(errors, hidden, count, torch.Generator().manual_seed(seed + 1))

    assert found.tolist() == expected


def test_badge_wants_unsure_samples_that_are_unlike_each_other() -> None:
    points = torch.tensor([[9.0, 0], [-9, 0], [0.1, 8], [0.1, 8.01], [0.1, -8], [9, 8], [-9, 8]])
    second = []
    for seed in range(100):
        first, then = choose(strategy("badge"), replace(question(points, [1, 0], 2), seed=seed)).tolist()
        # The longest gradient.
        assert first == 3
        second.append(then)
    # By squared distances two draws of three.
    assert 50 < second.count(4) < 84
    assert 2 not in second


def test_alfa_mix_asks_what_a_little_of_another_class_would_change() -> None:
    points = torch.tensor([[5.0, 0], [-5, 0], [4, 0], [0.2, 5], [-4, 1], [-0.2, -5], [3, 3]])
    assert {*choose(strategy("alfa_mix"), question(points, [1, 0], 2)).tolist()} == {3, 5}


def test_centres_are_of_different_clusters() -> None:
    points = torch.tensor([[0.0, 0], [0, 0.1], [5, 5], [5, 5.1], [9, 0], [9, 0.1]])
    assert {each // 2 for each in central(points, 3, 0).tolist()} == {0, 1, 2}
    same = torch.zeros(5, 2)
    assert len(central(same, 3, 0).unique()) == 3
    assert central(same, 0, 0).tolist() == []


def test_predicted_losses_are_great_where_known_ones_are() -> None:
    draws = torch.Generator().manual_seed(0)
    points = torch.randn(60, 2, generator=draws) + torch.tensor([3.0, 0]) * (torch.arange(60) % 2 * 2 - 1)[:, None]
    # On the right the task model is wrong throughout.
    chosen = choose(strategy("ll4al"), question(points, [0] * 30, 10))
    assert bool((points[chosen, 0] > 0).all())


def test_vaal_asks_for_what_looks_like_nothing_that_is_labelled() -> None:
    draws = torch.Generator().manual_seed(0)
    points = torch.randn(80, 6, generator=draws) * 0.1
    points[60:] += 3
    chosen = choose(strategy("vaal"), question(points, [0] * 30, 10, nn.Linear(6, 2)))
    assert int((chosen >= 60).sum()) >= 9


def test_features_are_what_goes_into_the_last_layer() -> None:
    model = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    found = features(model, TensorPool(points), torch.tensor([4, 0, 8]), block=2)
    torch.testing.assert_close(found.hidden, model[:2](points[[4, 0, 8]]).detach())
    torch.testing.assert_close(found.logits, model(points[[4, 0, 8]]).detach())
    with pytest.raises(InvalidValue, match="last layer"):
        features(nn.Sequential(nn.Conv2d(1, 1, 1)), TensorPool(points), torch.tensor([0]))


def test_what_learns_needs_something_to_learn_from() -> None:
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    for name, labels in (("ll4al", [0]), ("vaal", [])):
        with pytest.raises(InvalidValue, match="Labelled samples"):
            choose(strategy(name), question(points, labels, 2))
