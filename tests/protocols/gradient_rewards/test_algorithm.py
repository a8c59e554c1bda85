"""Contributions, importance and rewards have the properties that the paper claims, and are refused what has no meaning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from comity.errors import InvalidValue, MalformedMessage, NonFiniteValue
from comity.protocols import gradient_rewards
from comity.protocols.gradient_rewards import (
    Mechanism,
    ServerState,
    SparseUpdate,
    aggregate_round,
    cosine_contribution,
    cosine_gradient_shapley,
    cosines_with,
    gram,
    normalize_update,
    reward_fractions,
    sampled_cosine_gradient_shapley,
    sparsify,
    sparsify_for_all,
    update_importance,
)

seeds = st.integers(0, 2**32)


def drawn(seed: int, clients: int, parameters: int = 6) -> tuple[Tensor, Tensor]:
    """Updates that have something in common, and weights, float64."""
    generator = torch.Generator().manual_seed(seed)
    updates = torch.randn(clients, parameters, dtype=torch.float64, generator=generator) + 0.5
    return updates, torch.rand(clients, dtype=torch.float64, generator=generator) + 0.01


def by_permutations(updates: Tensor, weights: Tensor) -> Tensor:
    """Definition 1, word by word, with 1/N!."""
    weighted = weights[:, None] * updates
    everybody = weighted.sum(dim=0)

    def value(coalition: Sequence[int]) -> float:
        if not coalition:
            return 0.0
        return float(torch.cosine_similarity(weighted[list(coalition)].sum(dim=0), everybody, dim=0))

    shapley = torch.zeros(len(updates), dtype=torch.float64)
    orders = list(itertools.permutations(range(len(updates))))
    for order in orders:
        for place, client in enumerate(order):
            shapley[client] += value(sorted(order[: place + 1])) - value(sorted(order[:place]))
    return shapley / len(orders)


def assert_efficient(shapley: Tensor) -> None:
    assert float(shapley.sum()) == pytest.approx(1.0, abs=1e-9)


def assert_symmetric(shapley: Tensor, one: int, other: int) -> None:
    assert float(shapley[one]) == pytest.approx(float(shapley[other]), abs=1e-9)


def assert_null_player(shapley: Tensor, client: int) -> None:
    assert float(shapley[client]) == pytest.approx(0.0, abs=1e-9)


def assert_permutation_covariant(shapley: Tensor, permuted: Tensor, order: Tensor) -> None:
    assert torch.allclose(shapley[order], permuted, atol=1e-9)


def assert_nested(smaller: SparseUpdate, larger: SparseUpdate) -> None:
    assert set(smaller.indices.tolist()) <= set(larger.indices.tolist())


def test_exports_are_exact() -> None:
    assert all(hasattr(gradient_rewards, name) for name in gradient_rewards.__all__)
    assert gradient_rewards.__all__ == sorted(gradient_rewards.__all__, key=lambda name: (not name.isupper(), name))


class TestShapley:
    @given(seeds, st.integers(1, 7))
    def test_it_is_the_mean_over_all_permutations(self, seed: int, clients: int) -> None:
        updates, weights = drawn(seed, min(clients, 6) if seed % 10 else clients)
        assert torch.allclose(
            cosine_gradient_shapley(gram(updates), weights), by_permutations(updates, weights), atol=1e-9
        )

    @pytest.mark.slow
    def test_it_is_the_mean_over_all_permutations_of_seven(self) -> None:
        updates, weights = drawn(3, 7)
        expected = by_permutations(updates, weights)
        assert torch.allclose(cosine_gradient_shapley(gram(updates), weights), expected, atol=1e-9)
        assert torch.allclose(cosine_gradient_shapley(gram(updates.float()), weights), expected, atol=1e-6)

    @given(seeds, st.integers(1, 13))
    def test_efficiency(self, seed: int, clients: int) -> None:
        updates, weights = drawn(seed, clients)
        assert_efficient(cosine_gradient_shapley(gram(updates), weights))

    @given(seeds, st.integers(2, 9), st.data())
    def test_symmetry(self, seed: int, clients: int, data: st.DataObject) -> None:
        updates, weights = drawn(seed, clients)
        one, other = data.draw(st.permutations(range(clients)))[:2]
        updates[one], weights[one] = updates[other], weights[other]
        assert_symmetric(cosine_gradient_shapley(gram(updates), weights), one, other)

    @given(seeds, st.integers(2, 9), st.data(), st.booleans())
    def test_null_player(self, seed: int, clients: int, data: st.DataObject, weightless: bool) -> None:
        updates, weights = drawn(seed, clients)
        client = data.draw(st.integers(0, clients - 1))
        if weightless:
            weights[client] = 0
        else:
            updates[client] = 0
        shapley = cosine_gradient_shapley(gram(updates), weights)
        assert_null_player(shapley, client)
        others = [each for each in range(clients) if each != client]
        alone = cosine_gradient_shapley(gram(updates[others]), weights[others])
        assert torch.allclose(shapley[others], alone, atol=1e-9)

    @given(seeds, st.integers(1, 11), st.data())
    def test_permutation_covariance(self, seed: int, clients: int, data: st.DataObject) -> None:
        updates, weights = drawn(seed, clients)
        order = torch.tensor(data.draw(st.permutations(range(clients))))
        shapley = cosine_gradient_shapley(gram(updates), weights)
        assert_permutation_covariant(shapley, cosine_gradient_shapley(gram(updates[order]), weights[order]), order)

    @given(seeds, st.integers(1, 8), st.floats(1e-6, 1e6))
    def test_the_scale_of_weights_and_updates_has_no_effect(self, seed: int, clients: int, scale: float) -> None:
        updates, weights = drawn(seed, clients)
        shapley = cosine_gradient_shapley(gram(updates), weights)
        assert torch.allclose(cosine_gradient_shapley(gram(updates * scale), weights * scale), shapley, atol=1e-9)

    def test_a_coalition_whose_updates_cancel_is_worth_nothing(self) -> None:
        updates = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        shapley = cosine_gradient_shapley(gram(updates))
        assert_efficient(shapley)
        pair = 2 / math.sqrt(5)
        assert_symmetric(shapley, 0, 1)
        # Worth of {0}, {1} and {0, 1}: 0; of {2} and all: 1; of {0, 2} and {1, 2}: 2 / sqrt(5). So client 0 adds
        # pair - 1 in one order, 1 - pair in two, and nothing in three.
        expected = ((pair - 1) + 2 * (1 - pair)) / 6
        assert float(shapley[0]) == pytest.approx(expected, abs=1e-12)

    def test_more_clients_than_can_be_enumerated_are_refused(self) -> None:
        with pytest.raises(InvalidValue, match="1 to 24, received 25"):
            cosine_gradient_shapley(torch.eye(25))

    @given(seeds, st.integers(1, 6))
    def test_sampling_comes_near_and_is_efficient(self, seed: int, clients: int) -> None:
        updates, weights = drawn(seed, clients)
        products = gram(updates)
        sampled = sampled_cosine_gradient_shapley(products, weights, 2000, torch.Generator().manual_seed(seed))
        assert_efficient(sampled)
        assert torch.allclose(sampled, cosine_gradient_shapley(products, weights), atol=0.08)

    def test_sampling_repeats_with_its_generator_and_takes_many_clients(self) -> None:
        updates, weights = drawn(5, 300)
        one, same, other = (
            sampled_cosine_gradient_shapley(gram(updates), weights, 30, torch.Generator().manual_seed(seed))
            for seed in (1, 1, 2)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert_efficient(one)


class TestCosine:
    @given(seeds, st.integers(1, 9))
    def test_it_is_the_cosine_with_the_aggregate(self, seed: int, clients: int) -> None:
        updates, weights = drawn(seed, clients)
        aggregate = (weights[:, None] * updates).sum(dim=0)
        expected = torch.cosine_similarity(updates, aggregate[None], dim=1)
        assert torch.allclose(cosine_contribution(gram(updates), weights), expected, atol=1e-9)

    @given(seeds, st.integers(1, 9), st.sampled_from([1e-25, 1.0, 1e25]))
    def test_from_the_updates_it_is_the_same(self, seed: int, clients: int, scale: float) -> None:
        updates, weights = drawn(seed, clients)
        expected = cosine_contribution(gram(updates), weights)
        assert torch.allclose(cosines_with(updates, weights @ updates), expected, atol=1e-9)
        single = updates.float() * scale
        assert torch.allclose(cosines_with(single, weights.float() @ single), expected, atol=1e-5)

    def test_from_the_updates_what_has_no_cosine_is_refused(self) -> None:
        updates = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        assert cosines_with(updates, torch.tensor([2.0, 0.0])).tolist() == [1.0, 0.0]
        with pytest.raises(InvalidValue, match="cancel"):
            cosines_with(updates, torch.zeros(2))
        with pytest.raises(InvalidValue, match="one a parameter"):
            cosines_with(updates, torch.ones(3))
        with pytest.raises(NonFiniteValue, match="client 1"):
            cosines_with(torch.tensor([[1.0, 0.0], [0.0, math.nan]]), torch.ones(2))
        with pytest.raises(NonFiniteValue, match="aggregate"):
            cosines_with(updates, torch.tensor([1.0, math.inf]))

    def test_weights_are_equal_where_left_out(self) -> None:
        products = gram(drawn(1, 5)[0])
        for value in (cosine_contribution, cosine_gradient_shapley):
            assert torch.allclose(value(products), value(products, torch.full((5,), 0.2)), atol=1e-12)

    def test_a_client_without_weight_still_has_a_cosine(self) -> None:
        updates = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        cosines = cosine_contribution(gram(updates), torch.tensor([1.0, 0.0, 0.0]))
        assert cosines.tolist() == pytest.approx([1.0, math.sqrt(0.5), 0.0], abs=1e-7)


class TestGram:
    def test_it_is_exact_enough_symmetric_and_float64(self) -> None:
        updates = torch.randn(5, 100_003, generator=torch.Generator().manual_seed(0))
        products = gram(updates)
        assert products.dtype == torch.float64
        assert torch.equal(products, products.T)
        assert torch.allclose(products, updates.double() @ updates.double().T, atol=0.05, rtol=1e-6)
        assert torch.allclose(gram(updates.bfloat16()), products, atol=200, rtol=0.02)

    @pytest.mark.parametrize("scale", [1e-25, 1e25])
    def test_squares_that_float32_does_not_hold_are_held(self, scale: float) -> None:
        updates = torch.tensor([[3.0, 4.0], [0.0, 1.0]]) * scale
        assert (gram(updates) / scale**2).flatten().tolist() == pytest.approx([25.0, 4.0, 4.0, 1.0])

    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    def test_values_that_are_not_finite_are_refused_by_client(self, wrong: float) -> None:
        updates = torch.ones(3, 4)
        updates[1, 2] = wrong
        with pytest.raises(NonFiniteValue, match="client 1"):
            gram(updates)

    @pytest.mark.parametrize(
        "wrong", [torch.ones(3), torch.ones(0, 3), torch.ones(3, 0), torch.ones(2, 2, 2), torch.ones(2, 2).int()]
    )
    def test_other_shapes_are_refused(self, wrong: Tensor) -> None:
        with pytest.raises(InvalidValue, match="updates"):
            gram(wrong)


@pytest.mark.parametrize("value", [cosine_contribution, cosine_gradient_shapley])
@pytest.mark.parametrize(
    ("products", "weights", "error"),
    [
        (torch.ones(2, 3), None, InvalidValue),
        (torch.ones(0, 0), None, InvalidValue),
        (torch.ones(4), None, InvalidValue),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), None, NonFiniteValue),
        (torch.eye(2), torch.ones(3), InvalidValue),
        (torch.eye(2), torch.zeros(2), InvalidValue),
        (torch.eye(2), torch.tensor([1.0, -1.0]), InvalidValue),
        (torch.eye(2), torch.tensor([1.0, math.nan]), InvalidValue),
        (torch.eye(2), torch.tensor([1.0, math.inf]), InvalidValue),
        (torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), None, InvalidValue),
        (torch.zeros(2, 2), None, InvalidValue),
    ],
)
def test_what_has_no_contribution_is_refused(
    value: type, products: Tensor, weights: Tensor | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        value(products, weights)


class TestImportance:
    @given(seeds, st.integers(1, 9), st.floats(0, 1), st.floats(0, 0.11))
    def test_it_sums_to_1_and_none_is_below_the_floor(
        self, seed: int, clients: int, alpha: float, floor: float
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        past = torch.rand(clients, dtype=torch.float64, generator=generator)
        contribution = 2 * torch.rand(clients, dtype=torch.float64, generator=generator) - 1
        importance = update_importance(past / past.sum(), contribution, alpha, floor)
        assert float(importance.sum()) == pytest.approx(1.0, abs=1e-12)
        assert bool((importance >= floor - 1e-15).all())
        order = (alpha * past / past.sum() + (1 - alpha) * contribution).argsort()
        assert bool((importance[order].diff() >= -1e-15).all())

    def test_without_a_floor_it_is_equation_4(self) -> None:
        past, contribution = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.9, 0.5, 0.1]).double()
        average = 0.95 * past + 0.05 * contribution
        assert torch.allclose(update_importance(past, contribution, 0.95, 0.0), average / average.sum())

    def test_the_first_importance_is_the_contribution(self) -> None:
        assert update_importance(torch.zeros(2), torch.tensor([3.0, 1.0]), 0.95).tolist() == [0.75, 0.25]

    def test_the_reference_rule_clamps_before_it_normalizes(self) -> None:
        past, contribution = torch.zeros(2), torch.tensor([1.0, -1.0])
        assert update_importance(past, contribution, 0.0, 0.25).tolist() == [0.75, 0.25]
        assert update_importance(past, contribution, 0.0, 0.25, rule="reference").tolist() == [0.8, 0.2]

    @pytest.mark.parametrize("rule", ["paper", "reference"])
    def test_nothing_to_tell_clients_apart_makes_them_equal(self, rule: gradient_rewards.Rule) -> None:
        assert update_importance(torch.zeros(4), -torch.ones(4), 0.5, 0.0, rule=rule).tolist() == [0.25] * 4

    @pytest.mark.parametrize(
        ("alpha", "floor"), [(-0.1, 0), (1.1, 0), (math.nan, 0), (0.5, -0.1), (0.5, 0.6), (0.5, math.nan)]
    )
    def test_parameters_out_of_range_are_refused(self, alpha: float, floor: float) -> None:
        with pytest.raises(InvalidValue):
            update_importance(torch.ones(2) / 2, torch.ones(2), alpha, floor)

    def test_other_arguments_are_refused(self) -> None:
        with pytest.raises(InvalidValue, match="every client"):
            update_importance(torch.ones(3), torch.ones(2), 0.5)
        with pytest.raises(InvalidValue, match="every client"):
            update_importance(torch.ones(0), torch.ones(0), 0.5)
        with pytest.raises(InvalidValue, match="rule"):
            update_importance(torch.ones(2), torch.ones(2), 0.5, rule="other")  # type: ignore[arg-type]
        with pytest.raises(NonFiniteValue):
            update_importance(torch.ones(2), torch.tensor([1.0, math.nan]), 0.5)


class TestFractions:
    @given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=9), st.floats(1e-3, 1e3))
    def test_they_are_equation_5(self, importance: list[float], beta: float) -> None:
        fractions = reward_fractions(torch.tensor(importance, dtype=torch.float64), beta)
        highest = max(math.tanh(beta * each) for each in importance)
        assert fractions.tolist() == pytest.approx([math.tanh(beta * each) / highest for each in importance])
        assert float(fractions.max()) == 1.0

    def test_more_altruism_pays_more_and_endless_altruism_everything(self) -> None:
        importance = torch.tensor([0.1, 0.3, 0.6])
        less, more = reward_fractions(importance, 1.0), reward_fractions(importance, 2.0)
        assert bool((less <= more).all())
        assert bool((less < more)[:2].all())
        assert reward_fractions(importance, math.inf).tolist() == [1.0] * 3
        assert reward_fractions(torch.tensor([0.0, 1.0]), math.inf).tolist() == [0.0, 1.0]

    def test_the_floor_rule_of_the_paper(self) -> None:
        least, share = 0.05, 0.4
        importance = torch.tensor([least, 0.25, 0.7], dtype=torch.float64)
        assert float(reward_fractions(importance, math.atanh(share) / least).min()) >= share

    @pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
    def test_beta_out_of_range_is_refused(self, beta: float) -> None:
        with pytest.raises(InvalidValue, match="beta"):
            reward_fractions(torch.ones(2), beta)

    @pytest.mark.parametrize(
        "importance",
        [torch.zeros(2), torch.ones(0), torch.ones(1, 1), torch.tensor([1.0, -0.1]), torch.tensor([1.0, math.nan])],
    )
    def test_importance_out_of_range_is_refused(self, importance: Tensor) -> None:
        with pytest.raises(InvalidValue, match="Importance"):
            reward_fractions(importance, 1.0)


# Few values, so that there are ties; both zeros.
tied_updates = st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 1e-40, 3e38]), min_size=1, max_size=60)
shares = st.floats(0, 1)


class TestSparsify:
    @given(tied_updates, shares, st.sampled_from([torch.float32, torch.float64]))
    def test_it_keeps_exactly_the_largest_and_the_first_of_equals(
        self, values: list[float], fraction: float, dtype: torch.dtype
    ) -> None:
        update = torch.tensor(values, dtype=dtype)
        kept = sparsify(update, fraction)
        count = math.floor(len(values) * fraction)
        order = sorted(range(len(values)), key=lambda index: (-abs(float(update[index])), index))
        assert kept.indices.tolist() == sorted(order[:count])
        assert (kept.indices.dtype, kept.values.dtype, kept.size) == (torch.int64, dtype, len(values))
        assert torch.equal(kept.values, update[kept.indices])
        dense = kept.dense()
        assert torch.equal(dense[kept.indices], kept.values)
        assert int((dense != 0).sum()) <= count

    @given(seeds, st.lists(shares, min_size=1, max_size=6))
    def test_masks_are_nested_and_those_of_one_alone(self, seed: int, fractions: list[float]) -> None:
        update = torch.randn(500, generator=torch.Generator().manual_seed(seed))
        together = sparsify_for_all(update, fractions)
        for fraction, kept in zip(fractions, together, strict=True):
            alone = sparsify(update, fraction)
            assert torch.equal(kept.indices, alone.indices)
            assert torch.equal(kept.values, alone.values)
        ordered = [kept for _, kept in sorted(zip(fractions, together, strict=True), key=lambda each: each[0])]
        for smaller, larger in itertools.pairwise(ordered):
            assert_nested(smaller, larger)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_everything_is_the_update_bit_for_bit(self, dtype: torch.dtype) -> None:
        update = torch.tensor([-0.0, 0.0, 1e-8, -2.0, 2.0], dtype=dtype)
        whole = sparsify(update, 1.0).dense()
        width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        assert torch.equal(whole.view(width), update.view(width))
        assert sparsify(update, 0.4).indices.tolist() == [3, 4]

    def test_it_is_fast_where_all_are_equal_and_takes_views(self) -> None:
        assert sparsify(torch.ones(10_000), 0.5).indices.tolist() == list(range(5000))
        assert sparsify(torch.arange(20.0)[::2], 0.3).values.tolist() == [14.0, 16.0, 18.0]
        assert sparsify(torch.arange(4.0).requires_grad_(), 0.5).values.tolist() == [2.0, 3.0]

    def test_the_reference_rule_goes_by_tensor_and_never_keeps_the_last_entry(self) -> None:
        update = torch.tensor([1.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0, 5.0])
        for fraction, expected in ((0.0, []), (0.3, [2, 3, 4, 7]), (1.0, [1, 2, 3, 4, 5, 7])):
            kept = sparsify(update, fraction, rule="reference", sizes=[3, 4, 1])
            assert kept.indices.tolist() == expected

    @pytest.mark.parametrize("sizes", [None, [], [2], [5], [4, 0], [6, -2]])
    def test_the_reference_rule_needs_the_sizes_of_the_tensors(self, sizes: list[int] | None) -> None:
        with pytest.raises(InvalidValue, match="Sizes"):
            sparsify(torch.ones(4), 0.5, rule="reference", sizes=sizes)

    @pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan])
    def test_a_fraction_out_of_range_is_refused(self, fraction: float) -> None:
        with pytest.raises(InvalidValue, match="share"):
            sparsify(torch.ones(4), fraction)

    def test_other_arguments_are_refused(self) -> None:
        for wrong in (torch.ones(2, 2), torch.ones(0), torch.ones(3).int()):
            with pytest.raises(InvalidValue, match="sparsify"):
                sparsify(wrong, 0.5)
        with pytest.raises(InvalidValue, match="rule"):
            sparsify(torch.ones(3), 0.5, rule="other")  # type: ignore[arg-type]
        for value in (math.nan, math.inf):
            with pytest.raises(NonFiniteValue):
                sparsify(torch.tensor([1.0, value]), 0.5)


class TestNormalize:
    @given(seeds, st.floats(0.01, 10), st.sampled_from([1e-25, 1.0, 1e25]))
    def test_updates_get_the_length(self, seed: int, length: float, scale: float) -> None:
        update = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed)) * scale
        normal = normalize_update(update, length)
        assert normal.dtype == torch.float32
        assert normal.norm(dim=1).tolist() == pytest.approx([length] * 3, rel=1e-5)
        assert torch.equal(normalize_update(update[1], length), normal[1])

    @pytest.mark.parametrize("length", [0.0, -1.0, math.inf, math.nan])
    def test_a_length_out_of_range_is_refused(self, length: float) -> None:
        with pytest.raises(InvalidValue, match="Gamma"):
            normalize_update(torch.ones(2), length)

    def test_updates_without_a_direction_are_refused(self) -> None:
        with pytest.raises(MalformedMessage, match="zeros"):
            normalize_update(torch.zeros(3), 1.0)
        for value in (math.nan, math.inf):
            with pytest.raises(NonFiniteValue):
                normalize_update(torch.tensor([1.0, value]), 1.0)


class TestRound:
    updates = normalize_update(drawn(0, 4, 50)[0].float(), 0.5)
    sizes = (10.0, 20.0, 30.0, 40.0)

    def test_it_is_the_papers_round(self) -> None:
        first = aggregate_round(self.updates, ServerState.first(self.sizes), Mechanism())
        weights = torch.tensor(self.sizes).double() / 100
        products = gram(self.updates)
        assert torch.allclose(first.contribution, cosine_contribution(products, weights), atol=1e-6)
        importance = update_importance(torch.zeros(4), first.contribution, 0.95)
        assert torch.equal(first.state.importance, importance)
        assert torch.allclose(first.aggregate, (weights[:, None] * self.updates).sum(0).float(), atol=1e-7)
        assert torch.equal(first.fractions, reward_fractions(first.state.importance, 1.0))
        best = int(importance.argmax())
        assert torch.equal(first.rewards[best].dense(), first.aggregate)

        second = aggregate_round(self.updates, first.state, Mechanism())
        expected = update_importance(importance, cosine_contribution(products, importance), 0.95)
        assert torch.allclose(second.state.importance, expected, atol=1e-6)

    def test_who_took_no_part_keeps_its_importance_and_gets_nothing(self) -> None:
        first = aggregate_round(self.updates, ServerState.first(self.sizes), Mechanism())
        second = aggregate_round(self.updates[[0, 2]], first.state, Mechanism(), present=[0, 2])
        before, after = first.state.importance, second.state.importance
        assert torch.equal(after[[1, 3]], before[[1, 3]])
        assert float(after.sum()) == pytest.approx(1.0)
        assert not torch.equal(after[[0, 2]], before[[0, 2]])
        assert (second.present, len(second.rewards), len(second.contribution)) == ((0, 2), 2, 2)

    def test_who_comes_late_is_valued_from_then_on(self) -> None:
        first = aggregate_round(self.updates[:3], ServerState.first([1, 1, 1, 1]), Mechanism(), present=[0, 1, 2])
        assert float(first.state.importance[3]) == 0.25
        assert first.state.valued.tolist() == [True, True, True, False]
        second = aggregate_round(self.updates, first.state, Mechanism())
        assert second.state.valued.all()
        assert float(second.state.importance.sum()) == pytest.approx(1.0)
        assert float(second.state.importance[3]) < 0.25

    @pytest.mark.parametrize("valuation", ["shapley", "sampled"])
    def test_other_valuations(self, valuation: str) -> None:
        mechanism = Mechanism(valuation=valuation, permutations=3000)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        settled = aggregate_round(self.updates, ServerState.first(self.sizes), mechanism, generator=generator)
        assert_efficient(settled.contribution)
        exact = cosine_gradient_shapley(gram(self.updates), torch.tensor(self.sizes))
        assert torch.allclose(settled.contribution, exact, atol=0.02)

    def test_sampling_needs_a_generator(self) -> None:
        with pytest.raises(InvalidValue, match="generator"):
            aggregate_round(self.updates, ServerState.first(self.sizes), Mechanism(valuation="sampled"))

    def test_fixed_weights_value_alike_in_every_round(self) -> None:
        mechanism = Mechanism(coalition_weights="fixed")
        first = aggregate_round(self.updates, ServerState.first(self.sizes), mechanism)
        second = aggregate_round(self.updates, first.state, mechanism)
        assert torch.equal(first.contribution, second.contribution)

    def test_with_normalized_contributions_alpha_is_the_weight_of_the_past(self) -> None:
        mechanism = Mechanism(normalize_contributions=True, floor=0.0)
        first = aggregate_round(self.updates, ServerState.first(self.sizes), mechanism)
        second = aggregate_round(self.updates, first.state, mechanism)
        share = second.contribution / second.contribution.sum()
        expected = 0.95 * first.state.importance + 0.05 * share
        assert torch.allclose(second.state.importance, expected)

    def test_a_round_repeats_to_the_last_bit(self) -> None:
        one, same = (aggregate_round(self.updates, ServerState.first(self.sizes), Mechanism()) for _ in range(2))
        assert torch.equal(one.state.importance, same.state.importance)
        assert all(torch.equal(a.values, b.values) for a, b in zip(one.rewards, same.rewards, strict=True))

    @pytest.mark.parametrize("present", [[], [0], [1, 0], [0, 0], [0, 4], [-1, 0], [0, 1, 2]])
    def test_wrong_participants_are_refused(self, present: list[int]) -> None:
        with pytest.raises(InvalidValue, match="took part"):
            aggregate_round(self.updates[:2], ServerState.first(self.sizes), Mechanism(), present=present)

    def test_an_update_of_zeros_is_refused(self) -> None:
        updates = self.updates.clone()
        updates[2] = 0
        with pytest.raises(MalformedMessage, match=r"client 2.*zeros"):
            aggregate_round(updates, ServerState.first(self.sizes), Mechanism())

    @pytest.mark.parametrize("valuation", ["cosine", "shapley"])
    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    def test_an_update_that_is_not_finite_is_refused(self, valuation: str, wrong: float) -> None:
        updates = self.updates.clone()
        updates[1, 3] = wrong
        with pytest.raises(NonFiniteValue, match="client 1"):
            aggregate_round(updates, ServerState.first(self.sizes), Mechanism(valuation=valuation))  # type: ignore[arg-type]

    def test_updates_that_cancel_are_refused(self) -> None:
        updates = torch.stack((self.updates[0], -self.updates[0]))
        with pytest.raises(InvalidValue, match="cancel"):
            aggregate_round(updates, ServerState.first([1, 1]), Mechanism())

    @pytest.mark.parametrize("sizes", [[], [0], [1, -1], [1, math.inf], [math.nan]])
    def test_sizes_out_of_range_are_refused(self, sizes: list[float]) -> None:
        with pytest.raises(InvalidValue, match="Sizes"):
            ServerState.first(sizes)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"alpha": 1.5},
            {"alpha": math.nan},
            {"beta": 0},
            {"floor": 1},
            {"rule": "other"},
            {"valuation": "guess"},
            {"permutations": 0},
            {"coalition_weights": "none"},
        ],
    )
    def test_settings_out_of_range_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InvalidValue, match=next(iter(wrong))):
            Mechanism(**wrong)  # type: ignore[arg-type]
