"""The leak guard's rules, what it collects, and what it does with models, updates and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from comity.models import build
from comity.privacy.leak_guard import Collector, LeakGuard, Rules, Verdict, unjudged
from comity.privacy.leak_guard.columns import Columns, Draws
from comity.privacy.leak_guard.layers import successive
from comity.privacy.leak_guard.patches import patches
from comity.privacy.leak_guard.rules import combined, could_pair, grouped, most_of_one, paired, scaled, whole


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread(columns: Columns, samples: int) -> torch.Tensor:
    """The values over all samples."""
    everything = columns.values.new_zeros(len(columns.values), samples)
    everything[:, columns.samples] = columns.values
    return everything


def leverage(rows: torch.Tensor) -> torch.Tensor:
    """Δ_sᵀ (ΔΔᵀ + 1e-6·I)⁻¹ Δ_s, as it is written."""
    products = rows @ rows.T + 1e-6 * torch.eye(len(rows), dtype=torch.float64)
    return (rows * torch.linalg.solve(products, rows)).sum(0)


def test_leverages_are_those_that_are_written_down() -> None:
    rows = scaled(draw(12, 40))
    pairs = paired(rows[:6], rows[6:])
    for index in range(6):
        assert torch.allclose(pairs[index], leverage(rows[[index, index + 6]]))
    groups = torch.tensor([[0, 3, 5, 7], [2, 1, 11, 4]])
    for members, found in zip(groups, grouped(rows, groups), strict=True):
        assert torch.allclose(found, leverage(rows[members]))


def test_what_a_pair_could_show_bounds_what_it_shows() -> None:
    rows = scaled(
        torch.cat([draw(40, 30), draw(40, 30, seed=1) * torch.eye(30, dtype=torch.float64).repeat(2, 1)[:40]])
    )
    one, other = rows[:40], rows[40:]
    cosine = (one * other).sum(1)
    assert (could_pair(most_of_one(one), most_of_one(other), cosine) >= paired(one, other).amax(1) - 1e-9).all()


def test_nearly_parallel_rows_are_told_apart_by_their_difference() -> None:
    rows = draw(1, 500).repeat(2, 1)
    rows[1, 7] += 1.0
    pair = paired(*scaled(rows).split(1))
    assert int(pair.argmax()) == 7
    assert float(pair.max()) > 0.99
    held, shown = combined(scaled(rows), Rules())
    assert held.all()
    assert shown.nonzero().flatten().tolist() == [7]
    one, other = (Columns(torch.arange(500), each) for each in scaled(rows).split(1))
    shares = most_of_one(one.values), most_of_one(other.values)
    pairs = torch.tensor([0]), torch.tensor([0])
    assert successive(one, other, pairs, shares, Rules()).tolist() == [True]
    other = Columns(torch.arange(400, 900), other.values)
    assert successive(one, other, pairs, shares, Rules()).tolist() == [False]


@given(st.integers(0, 2**16))
def test_successive_sends_are_judged_as_pairs_of_rows_over_all_samples(seed: int) -> None:
    """Few samples in common, or most: what stays is what the pair rule says of rows that are spread over all."""
    draws = torch.Generator().manual_seed(seed)
    size = int(torch.randint(8, 40, (1,), generator=draws))
    one, other = (
        Columns(
            torch.randperm(40, generator=draws)[:size].sort().values,
            scaled(torch.randn(12, size, generator=draws).pow(3)),
        )
        for _ in range(2)
    )
    pairs = torch.randperm(12, generator=draws), torch.randperm(12, generator=draws)
    # Some are nearly what was sent before.
    other.values[pairs[1][:3]] = scaled(one.values[pairs[0][:3]] + 1e-3 * other.values[pairs[1][:3]])
    whole_rows = spread(one, 40)[pairs[0]], spread(other, 40)[pairs[1]]
    shares = most_of_one(one.values)[pairs[0]], most_of_one(other.values)[pairs[1]]
    expected = paired(*whole_rows).amax(1) > 0.8
    assert torch.equal(successive(one, other, pairs, shares, Rules()), expected)


def test_a_row_of_one_sample_is_seen_at_any_scale() -> None:
    rows = draw(3, 50)
    rows[0] *= 1e-18
    rows[1] = 1e-20
    rows[1, 4] = 1e-12
    rows[2] = 0
    found = most_of_one(scaled(rows))
    assert found[0] < 0.5
    assert found[1] == pytest.approx(1, abs=1e-6)
    assert found[2] == 0


def test_groups_see_what_pairs_do_not() -> None:
    rows = draw(9, 300)
    # Nine rows whose sum is one sample.
    rows[8] = -rows[:8].sum(0)
    rows[8, 5] += 40
    near, _ = combined(scaled(rows), Rules(neighbours=0))
    wide, shown = combined(scaled(rows), Rules(neighbours=8))
    assert not near.any()
    assert wide.all()
    assert bool(shown[5])


def test_where_most_rows_of_a_layer_stay_all_do() -> None:
    assert whole(torch.tensor([True, True, True, True, False]), Rules()).all()
    assert whole(torch.tensor([True, True, True, False]), Rules()).tolist() == [True, True, True, False]


def test_columns_add_up_by_sample() -> None:
    batch, other = torch.tensor([5, 2, 5]), torch.tensor([2, 1, 5])
    draws = Draws()
    one = draws.summed([(batch, torch.tensor([[1.0], [2.0], [3.0]]))])
    assert one.samples.tolist() == [2, 5]
    assert one.values.tolist() == [[2.0, 4.0]]
    # Another layer saw the same batch, and a third one more.
    assert draws.summed([(batch, torch.tensor([[1.0], [0.0], [0.0]]))]).values.tolist() == [[0.0, 1.0]]
    both = draws.summed([(batch, torch.ones(3, 1)), (other, torch.tensor([[0.0], [7.0], [0.5]]))])
    assert both.samples.tolist() == [1, 2, 5]
    assert both.values.tolist() == [[7.0, 1.0, 2.5]]


class Trial:
    """A small model whose steps are made by hand."""

    def __init__(self, model: nn.Module, rules: Rules) -> None:
        self.model = model
        self.guard = LeakGuard(Collector(model), rules)

    def step(self, samples: list[int], inputs: torch.Tensor, weights: torch.Tensor, rate: float = 1.0) -> None:
        self.model.zero_grad(set_to_none=True)
        with self.guard.batch(torch.tensor(samples)):
            (self.model(inputs) * weights).sum().backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(rate * parameter.grad)

    def state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


FEW = Rules(fewest=1, layer=1.0)


def test_a_row_that_waits_leaves_once_enough_is_behind_it() -> None:
    trial = Trial(nn.Linear(4, 3), FEW)
    start = trial.state()
    # Sample 0 alone moves row 0; both others are moved by thirty samples, in different ways.
    weights = draw(30, 3).float()
    weights[:, 0] = torch.eye(30)[0]
    inputs = torch.ones(30, 4)
    trial.step(list(range(30)), inputs, weights)
    first = trial.guard.release_model(trial.state(), start)
    assert first.verdict == Verdict(30, {"": 1}, 3, 0)
    assert torch.equal(first.state["weight"][0], start["weight"][0])
    assert torch.equal(first.state["bias"][0], start["bias"][0])
    assert not torch.equal(first.state["weight"][1:], start["weight"][1:])
    weights = draw(30, 3, seed=1).float()
    trial.step(list(range(30, 60)), inputs, weights)
    second = trial.guard.release_model(trial.state(), first.state)
    assert second.verdict.held_rows == 0
    assert torch.equal(second.state["weight"], trial.state()["weight"])


def test_an_updates_rows_that_stay_join_the_next_and_a_gradients_are_lost() -> None:
    for keeps in (True, False):
        trial = Trial(nn.Linear(4, 3), FEW)
        inputs, sent = torch.ones(30, 4), []
        made: list[dict[str, torch.Tensor]] = []
        for number in range(2):
            weights = draw(30, 3, seed=number).float()
            if number == 0:
                weights[:, 0] = torch.eye(30)[0]
            before = trial.state()
            trial.step(list(range(30 * number, 30 * number + 30)), inputs, weights)
            made.append({name: tensor - before[name] for name, tensor in trial.state().items()})
            release = trial.guard.release_update if keeps else trial.guard.release_gradient
            sent.append(release(made[-1]).state)
        assert not sent[0]["weight"][0].any()
        assert torch.equal(sent[0]["weight"][1:], made[0]["weight"][1:])
        whole = made[0]["weight"] + made[1]["weight"] if keeps else made[1]["weight"]
        assert torch.equal(sent[1]["weight"][0], whole[0])
        assert torch.equal(sent[1]["weight"][1:], made[1]["weight"][1:])


def test_a_send_like_the_one_before_stays() -> None:
    trial = Trial(nn.Linear(4, 3), FEW)
    inputs, weights = torch.ones(40, 4), draw(40, 3).float()
    for number in range(2):
        weights[3] += 0.5 * number
        before = trial.state()
        trial.step(list(range(40)), inputs, weights)
        difference = {name: tensor - before[name] for name, tensor in trial.state().items()}
        released = trial.guard.release_gradient(difference)
        assert released.verdict.held_rows == 3 * number


def test_a_layer_that_changed_unseen_stays() -> None:
    trial = Trial(nn.Linear(4, 3), FEW)
    start = trial.state()
    with torch.no_grad():
        trial.model.weight.add_(1.0)
    released = trial.guard.release_model(trial.state(), start)
    assert released.verdict.held == {"": 3}
    assert torch.equal(released.state["weight"], start["weight"])


def test_rows_of_an_embedding_that_one_sample_moved_stay() -> None:
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten())
    trial = Trial(model, FEW)
    start = trial.state()
    words = torch.tensor([[1, 2], [2, 3], [3, 3]])
    trial.step([10, 11, 12], words, torch.ones(3, 6))
    released = trial.guard.release_model(trial.state(), start)
    moved = (released.state["0.weight"] != start["0.weight"]).any(1)
    # Word 1 is in one sample; of word 3, sample 12 has two of three.
    assert moved.tolist() == [False, False, True, False, False, False]
    trial.step([13, 14], torch.tensor([[1, 4], [4, 4]]), torch.ones(2, 6))
    released = trial.guard.release_model(trial.state(), released.state)
    assert (released.state["0.weight"] == trial.state()["0.weight"]).all(1).tolist() == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]


def test_a_weight_with_two_names_is_held_under_both() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(6, 3)
            self.out = nn.Linear(3, 6, bias=False)
            self.out.weight = self.words.weight

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.out(self.words(words).mean(1))
            return made

    trial = Trial(Tied(), Rules(fewest=1, layer=1.0, neighbours=0, combined=2.0))
    start = trial.state()
    trial.step(list(range(12)), torch.arange(24).view(12, 2) % 6, draw(12, 6).float() * torch.eye(12, 6) * 5 + 1)
    released = trial.guard.release_model(trial.state(), start)
    assert released.verdict.held_rows > 0
    assert torch.equal(released.state["out.weight"], released.state["words.weight"])
    stayed = (released.state["words.weight"] == start["words.weight"]).all(1)
    assert int(stayed.sum()) * 2 == released.verdict.held_rows
    update = {"words.weight": trial.state()["words.weight"] - start["words.weight"]}
    again = Trial(trial.model, Rules(fewest=1))
    again.step([0], torch.tensor([[0, 1]]), torch.ones(1, 6))
    assert not again.guard.release_update(update).state["words.weight"][:2].any()


def test_positions_of_a_sample_count_together() -> None:
    trial = Trial(nn.Linear(4, 2), FEW)
    start = trial.state()
    inputs, weights = torch.ones(2, 5, 4), torch.zeros(2, 5, 2)
    weights[0, :, 0] = 1.0
    weights[:, :, 1] = 1.0
    trial.step([0, 1], inputs, weights)
    released = trial.guard.release_model(trial.state(), start)
    # In row 0 λ is 1, in row 1 it is .5.
    assert released.verdict == Verdict(2, {"": 1}, 2, 0)


@pytest.mark.parametrize("size", [3, 12])
def test_positions_of_a_sample_that_are_opposed_hide_nothing(size: int) -> None:
    # Lengths alone add up to nothing in sample 0, whose two positions the row moves by, as in the keys of an attention.
    trial = Trial(nn.Linear(size, 1), FEW)
    start = trial.state()
    positions = 4
    inputs, weights = torch.zeros(20, positions, size), torch.zeros(20, positions, 1)
    inputs[:, 0, 0], inputs[:, 1, 1] = 1.0, 1.0
    inputs[:, 2:] = 0.1
    weights[0, 0, 0], weights[0, 1, 0] = 1.0, -1.0
    weights[1:, 2] = 0.05
    trial.step(list(range(20)), inputs, weights)
    shown = trial.state()["weight"][0] - start["weight"][0]
    assert shown[0].sign() == -shown[1].sign() != 0
    released = trial.guard.release_model(trial.state(), start)
    assert released.verdict.held == {"": 1}
    assert torch.equal(released.state["weight"][0], start["weight"][0])


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: nn.Conv2d(1, 3, 4),
        lambda: nn.Conv2d(1, 3, 6, padding=1),
        lambda: nn.Conv2d(1, 3, (4, 3), stride=2),
        lambda: nn.Conv2d(1, 3, 2, dilation=3),
        lambda: nn.Conv2d(1, 3, 5, stride=2, padding=1),
    ],
    ids=["as large", "padded", "cropped", "dilated", "strided"],
)
def test_a_convolution_of_one_position_is_a_fully_connected_layer(convolution: Callable[[], nn.Conv2d]) -> None:
    trials = []
    for model in (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.Sequential(convolution(), nn.Flatten())):
        collector = Collector(model)
        inputs = draw(30, 1, 4, 4).float()
        means = collector.means(lambda model=model, inputs=inputs: model(inputs))
        trial = Trial(model, FEW)
        trial.guard = LeakGuard(collector, FEW, means)
        start = trial.state()
        weights = draw(30, 3, seed=1).float()
        weights[:, 0] = torch.eye(30)[4]
        trial.step(list(range(30)), inputs, weights)
        released = trial.guard.release_model(trial.state(), start)
        # And once more, by a guard that goes on from what the first kept.
        trial.guard = LeakGuard(collector, FEW, kept=trial.guard.kept())
        trial.step(list(range(30)), inputs, weights)
        trials.append((released.verdict, trial.guard.release_model(trial.state(), released.state).verdict))
        weight = next(name for name in start if name.endswith("weight"))
        assert torch.equal(released.state[weight][0], start[weight][0])
        assert not torch.equal(trial.state()[weight][0], start[weight][0])
    assert [each.held_rows for each in trials[0]] == [each.held_rows for each in trials[1]] == [1, 1]
    # One that slides over many places of its input is none.
    sliding = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.Flatten())
    collector = Collector(sliding)
    assert collector.layers(collector.means(lambda: sliding(draw(2, 1, 8, 8).float()))) == {}
    assert set(collector.layers(collector.means(lambda: sliding(draw(2, 1, 4, 4).float())))) == {"0", "1"}


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1),
        lambda: nn.Conv2d(2, 4, (2, 3), dilation=(2, 1), padding="same"),
        lambda: nn.Conv2d(2, 4, 3, groups=2, padding=1, padding_mode="circular"),
        lambda: nn.Conv1d(2, 4, 3, stride=2),
        lambda: nn.Conv3d(2, 4, 2, stride=2, groups=2),
    ],
    ids=["strided", "dilated", "grouped", "1d", "3d"],
)
def test_rows_of_a_convolution_of_few_positions_are_made_of_its_patches(convolution: Callable[[], nn.Conv2d]) -> None:
    module = convolution()
    inputs = draw(5, 2, *[4] * (module.weight.ndim - 2)).float()
    given = module(inputs)
    gradient = draw(*given.shape, seed=1).float()
    expected = torch.autograd.grad(given, module.weight, gradient)[0].flatten(1)
    seen = patches(module, inputs).unflatten(2, (module.groups, -1))
    steep = gradient.flatten(2).transpose(1, 2).unflatten(2, (module.groups, -1))
    assert torch.allclose(torch.einsum("bpgr,bpgi->gri", steep, seen).flatten(0, 1), expected, atol=1e-4)


def test_a_layer_that_is_called_twice_moves_by_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            # All but sample 0 take back what they say.
            again = inputs.clone()
            again[0] = again[0].flip(0)
            made: torch.Tensor = self.layer(inputs) - self.layer(again)
            return made

    trial = Trial(Twice(), FEW)
    start = trial.state()
    trial.step(list(range(40)), draw(40, 4).float(), torch.ones(40, 1))
    released = trial.guard.release_model(trial.state(), start)
    assert released.verdict.held == {"layer": 1}


@pytest.mark.parametrize("release", ["release_update", "release_gradient"])
def test_weights_that_are_used_without_calling_their_layer_stay(release: str) -> None:
    trial = Trial(nn.Linear(4, 3), FEW)
    moved = {"weight": torch.ones(3, 4), "bias": torch.ones(3)}
    released = getattr(trial.guard, release)(moved)
    assert released.verdict.held == {"": 3}
    assert not any(each.any() for each in released.state.values())


@pytest.mark.parametrize("scale", [1e-30, 1e25, 1e38])
def test_a_sample_is_seen_at_any_scale_of_inputs(scale: float) -> None:
    trial = Trial(nn.Linear(64, 3), FEW)
    start = trial.state()
    inputs = draw(40, 64).float() * scale
    weights = torch.full((40, 3), 1e-6 / scale)
    weights[7, 0] = 1.0 / scale
    trial.step(list(range(40)), inputs, weights)
    released = trial.guard.release_model(trial.state(), start)
    assert torch.equal(released.state["weight"][0], start["weight"][0])


def test_what_is_not_judged_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.lstm = nn.LSTM(3, 4)
            self.attention = nn.MultiheadAttention(4, 2)
            self.head = nn.Linear(4, 2)
            self.convolution = nn.Conv1d(1, 1, 3)

    named = unjudged(Odd())
    assert named == {
        "the model itself": "Odd",
        "lstm": "LSTM",
        "attention": "MultiheadAttention",
        "attention.out_proj": "NonDynamicallyQuantizableLinear",
    }
    assert set(Collector(Odd()).linear) == {"head"}
    assert unjudged(build("lenet5", input_shape=(1, 28, 28), outputs=10, options={}, seed=0)) == {}


@pytest.mark.parametrize("samples", [3000, 6000, 20000])
def test_rows_that_differ_by_one_of_many_samples_are_told_apart(samples: int) -> None:
    # Both are moved twice, each time in the same way, but for sample 0: so little of so many that they count as copies.
    one = draw(1, samples)
    one[0, 0] = 0.7
    other = one.clone()
    other[0, 0] = 0
    held, shown = combined(scaled(torch.cat([one, one, other, other])), Rules())
    assert held.all()
    assert bool(shown[0])
