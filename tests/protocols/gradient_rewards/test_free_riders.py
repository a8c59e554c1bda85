"""Who sends its reward again, another's update or noise is found; the honest are not; and the terms say what follows."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from comity.errors import InvalidValue
from comity.node.sessions.script import Script
from comity.protocols.gradient_rewards import Mechanism, ServerState, SparseUpdate, aggregate_round, normalize_update
from comity.protocols.gradient_rewards.free_riders import NEWS_ROUNDS, findings, shares, signs
from comity.protocols.gradient_rewards.history import AWAY_AFTER, History, signs_to_json
from comity.protocols.gradient_rewards.studies import demo
from comity.protocols.gradient_rewards.studies.federation import Federation, GradientRewards, Payment, Round

PARAMETERS = 3000
SAME = torch.empty(0)
"""Stands for the first client's update."""
WEIGHTS = torch.full((4,), 0.25, dtype=torch.float64)


def drawn(seed: int, clients: int = 4) -> Tensor:
    """Updates with a cosine of about .8 with each other."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(PARAMETERS, generator=generator)
    return normalize_update(common + 0.5 * torch.randn(clients, PARAMETERS, generator=generator), 0.5)


def whole(values: Tensor) -> SparseUpdate:
    return SparseUpdate(torch.arange(len(values)), values, len(values))


def test_honest_updates_are_their_own() -> None:
    found = signs(drawn(0), WEIGHTS, {0: whole(drawn(1)[0])})
    assert findings(found, [()] * 4) == [()] * 4
    assert shares(found, [()] * 4) is None
    assert all(each.copies == (place,) and each.share == 1 for place, each in enumerate(found))
    assert [each.echo is None for each in found] == [False, True, True, True]


@pytest.mark.parametrize(("scale", "noise"), [(1.0, 0.0), (-1.0, 0.0), (0.3, 0.0), (-2.0, 0.1)])
def test_a_copy_is_found_up_to_sign_and_scale_and_noise(scale: float, noise: float) -> None:
    updates = drawn(0)
    grain = torch.randn(PARAMETERS, generator=torch.Generator().manual_seed(3))
    updates[2] = scale * updates[0] + noise * abs(scale) * 0.5 * grain / grain.norm()
    found = signs(updates, WEIGHTS, {})
    assert [each.copies for each in found] == [(0, 2), (1,), (0, 2), (3,)]
    assert shares(found, findings(found, [()] * 4)) == [0.5, 1.0, 0.5, 1.0]


def test_one_that_is_made_of_two_others_counts_with_them_as_two() -> None:
    updates = drawn(0)
    updates[3] = normalize_update(updates[0] - 0.4 * updates[1], 0.5)
    found = signs(updates, WEIGHTS, {})
    assert found[3].copies == (0, 1, 3)
    assert [each.share for each in found] == pytest.approx([2 / 3, 2 / 3, 1, 2 / 3])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_last_reward_is_found(sign: float) -> None:
    updates, indices = drawn(0), torch.arange(0, PARAMETERS, 7)
    reward = SparseUpdate(indices, torch.randn(len(indices), generator=torch.Generator().manual_seed(4)), PARAMETERS)
    updates[1] = normalize_update(sign * reward.dense(), 0.5)
    found = signs(updates, WEIGHTS, {1: reward})
    assert found[1].echo == pytest.approx(1.0, abs=1e-6)
    assert findings(found, [()] * 4)[1] == ("its last reward",)
    assert shares(found, findings(found, [()] * 4)) == [1.0, 0.0, 1.0, 1.0]


def test_noise_beside_the_last_reward_shows_over_rounds_and_not_in_one() -> None:
    generator = torch.Generator().manual_seed(5)
    news: list[list[float]] = [[] for _ in range(4)]
    for number in range(NEWS_ROUNDS):
        updates, reward = drawn(number), torch.randn(PARAMETERS, generator=generator)
        updates[1] = normalize_update(reward + torch.randn(PARAMETERS, generator=generator), 0.5)
        found = signs(updates, WEIGHTS, {1: whole(reward)})
        said = findings(found, news)
        assert (said[1] == ("nothing new",)) is (number == NEWS_ROUNDS - 1)
        assert said[0] == said[2] == said[3] == ()
        for own, each in zip(news, found, strict=True):
            own.append(each.news)


def test_the_contribution_after_removal_leaves_out_ones_own_weight_and_ones_copies() -> None:
    updates = drawn(0)
    updates[1] = updates[0] = normalize_update(torch.randn(PARAMETERS, generator=torch.Generator().manual_seed(9)), 0.5)
    weights = torch.tensor([0.45, 0.45, 0.05, 0.05], dtype=torch.float64)
    found = signs(updates, weights, {})
    result = aggregate_round(updates, ServerState.first(weights.tolist()), Mechanism())
    assert float(result.contribution[0]) > 0.99
    assert abs(found[0].without or 0.0) < 0.1
    alone = signs(updates[:1], weights[:1], {})
    assert alone[0].without is None


def test_copies_weigh_as_one() -> None:
    updates = drawn(0)
    twice = torch.cat([updates[:1], updates])
    # Of equal weight, so that two halves are one.
    state = ServerState.first([1.0] * 5)
    one = aggregate_round(updates, ServerState.first([1.0] * 4), Mechanism())
    found = signs(twice, state.importance, {})
    same = aggregate_round(twice, state, Mechanism(), shares=shares(found, findings(found, [()] * 5)))
    assert torch.allclose(same.aggregate, one.aggregate, atol=1e-7)
    assert torch.allclose(same.state.importance[1:][1:], one.state.importance[1:], atol=1e-6)
    assert float(same.state.importance[:2].sum()) == pytest.approx(float(one.state.importance[0]), abs=1e-6)


@pytest.mark.parametrize("wrong", [[1.0], [0.0] * 4, [-1.0, 1, 1, 1], [2.0, 1, 1, 1]])
def test_wrong_parts_are_refused(wrong: list[float]) -> None:
    with pytest.raises(InvalidValue, match="Parts"):
        aggregate_round(drawn(0), ServerState.first([1.0] * 4), Mechanism(), shares=wrong)


class TestLeaving:
    def test_the_others_are_paid_by_the_greatest_of_themselves(self) -> None:
        updates = drawn(0)
        first = aggregate_round(updates, ServerState.first([5.0, 1, 1, 1]), Mechanism(alpha=0.0)).state
        heavy = ServerState(first.first_weights, torch.tensor([0.6, 0.1, 0.2, 0.1]).double(), first.valued)
        kept = aggregate_round(updates[1:], heavy, Mechanism(), present=[1, 2, 3])
        assert float(kept.fractions.max()) < 0.5
        gone = aggregate_round(updates[1:], heavy.without([0]), Mechanism(), present=[1, 2, 3])
        assert float(gone.fractions.max()) == 1
        assert float(gone.state.importance[1:].sum()) == pytest.approx(1.0)
        assert gone.state.left == (0,)

    def test_who_comes_back_has_what_it_had_beside_the_others(self) -> None:
        state = ServerState.first([6.0, 1, 2, 1])
        back = state.without([0]).without([])
        assert back.left == ()
        assert float(back.importance.sum()) == pytest.approx(1.0)
        assert float(back.importance[0]) == pytest.approx(0.6 / 1.6)

    def test_where_nobody_leaves_nothing_changes(self) -> None:
        state = ServerState.first([6.0, 1, 2, 1])
        assert state.without([]) is state

    @pytest.mark.parametrize("left", [[0, 1, 2, 3], [1, 0], [4], [0, 0]])
    def test_not_everybody_leaves(self, left: list[int]) -> None:
        with pytest.raises(InvalidValue, match="left"):
            ServerState.first([1.0] * 4).without(left)

    def test_who_has_left_takes_no_part(self) -> None:
        with pytest.raises(InvalidValue, match="took part"):
            aggregate_round(drawn(0), ServerState.first([1.0] * 4).without([0]), Mechanism())


class TestHistory:
    def rounds(self, *updates: Tensor | None) -> list[dict[str, Any]]:
        """Rounds of three clients, of which the last sends these; None for a round that it misses."""
        found = []
        for number, update in enumerate(updates):
            every = drawn(number, 3)
            if update is not None:
                every[2] = every[0] if update is SAME else update
            present = [0, 1] if update is None else [0, 1, 2]
            now = signs(every[present], WEIGHTS[present], {})
            found.append(signs_to_json(3, present, now, findings(now, [()] * len(present))))
        return found

    def test_rounds_in_a_row_exclude_all_copies_but_the_first(self) -> None:
        assert History(self.rounds(SAME, SAME)).due_for_exclusion(3) == {}
        assert History(self.rounds(SAME, SAME, None, SAME)).due_for_exclusion(3) == {2: "a copy"}
        assert History(self.rounds(SAME, drawn(9)[0], SAME)).due_for_exclusion(3) == {}
        assert History([]).due_for_exclusion(3) == {}

    def test_who_misses_rounds_in_a_row_is_away(self) -> None:
        missed = [SAME, *[None] * AWAY_AFTER]
        assert History(self.rounds(*missed)).is_away(2)
        assert not History(self.rounds(*missed[:-1])).is_away(2)
        assert not History(self.rounds(*missed, SAME)).is_away(2)


Attack = Callable[[int, Tensor, dict[int, SparseUpdate]], None]
BAD, CLEAN = (0, 0.6), [(1, 0.0), (2, 0.0), (3, 0.0)]


class Attacked(GradientRewards):
    """The protocol's rule, with what an attacker sends in place of some updates."""

    attack: Attack | None = None
    importance: Sequence[float] = ()

    def pay(self, round: Round) -> Payment:
        updates = round.updates.clone()
        if self.attack is not None:
            self.attack(round.number, updates, self._last)
        paid = super().pay(dataclasses.replace(round, updates=updates))
        self.importance = paid.importance
        return paid


def script(clients: Sequence[tuple[int, float]], rounds: int) -> Script:
    """The demo's script with these shares of the digits and wrong labels; one share has one secret."""
    found: dict[str, Any] = tomllib.loads(demo.script(0))
    found["session"]["rounds"] = rounds
    found["session"]["model"]["options"] = {"hidden": 64}
    found["session"]["terms"] |= {"clients": len(clients), "min_clients": 3}
    found["simulation"]["baselines"] = False
    found["party"] = {"server": found["party"]["server"]}
    for place, (share, noise) in enumerate(clients):
        partition = {"name": "uniform", "parties": 5, "index": share, "seed": 0}
        data = {"source": "digits", "seed": 0, "partition": partition, "label_noise": noise}
        found["party"][f"client-{place + 1}"] = {"role": "client", "secret": f"share-{share}", "data": data}
    return Script.model_validate(found)


def run(
    clients: Sequence[tuple[int, float]], follows: str, rounds: int, attack: Attack | None = None
) -> tuple[list[float], Attacked]:
    """Final accuracies, and the rule after the last round."""
    federation = Federation(script(clients, rounds))
    rule = Attacked(federation.terms.model_copy(update={"free_riders": follows}))
    rule.attack = attack
    return federation.run(rule).accuracies[-1], rule


def rides(noise: float) -> Attack:
    """Noise once, then the own last reward, with as much noise beside it as is said."""
    generator = torch.Generator().manual_seed(7)

    def attack(number: int, updates: Tensor, rewards: dict[int, SparseUpdate]) -> None:
        grain = torch.randn(updates.shape[1], generator=generator)
        grain /= grain.norm()
        if number > 1:
            reward = rewards[0].dense()
            grain = reward / reward.norm() + noise * grain
        updates[0] = normalize_update(grain, float(updates[1].norm()))

    return attack


@pytest.mark.slow
def test_who_joins_three_times_with_bad_labels_takes_everything_unless_copies_weigh_as_one() -> None:
    clients = [BAD, BAD, BAD, *CLEAN]
    warned, rule = run(clients, "warn", 40)
    assert min(rule.importance[:3]) > 0.3
    assert max(warned[3:]) < 0.85
    assert all(found[:3] == [("a copy",)] * 3 and found[3:] == [()] * 3 for found in rule.found)
    weighed, rule = run(clients, "weigh_as_one", 40)
    assert max(rule.importance[:3]) < 0.01
    assert min(weighed[3:]) > 0.94
    assert max(weighed[:3]) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_who_sends_its_last_reward_is_best_paid_unless_it_counts_as_nothing(noise: float) -> None:
    clients = [BAD, *CLEAN]
    warned, rule = run(clients, "warn", 40, rides(noise))
    assert rule.importance[0] > max(rule.importance[1:])
    assert warned[0] > 0.94
    late = rule.found[NEWS_ROUNDS:]
    assert all(found[0] and not any(found[1:]) for found in late)
    weighed, rule = run(clients, "weigh_as_one", 40, rides(noise))
    assert rule.importance[0] < 0.01
    assert weighed[0] < 0.91
    assert min(weighed[1:]) > 0.94


@pytest.mark.slow
def test_honest_clients_are_weighed_as_ever() -> None:
    clients = [(0, 0.6), (1, 0.4), (2, 0.2), (3, 0.0), (4, 0.0)]
    as_ever, rule = run(clients, "warn", 60)
    weighed, other = run(clients, "weigh_as_one", 60)
    assert not any(each for found in rule.found for each in found)
    assert (as_ever, rule.importance) == (weighed, other.importance)
