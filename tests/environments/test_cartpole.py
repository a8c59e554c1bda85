"""Batched CartPole against the environment of Gymnasium's that it stands for."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.environments import Draws, Environment, play
from comity.environments.cartpole import CartPole


def in_gymnasium(length: float, start: np.ndarray, actions: list[int]) -> tuple[np.ndarray, list[np.ndarray], bool]:
    game = gymnasium.make("CartPole-v1")
    game.reset()
    inner = game.unwrapped
    inner.length, inner.polemass_length = length, inner.masspole * length
    inner.state = start.copy()
    seen, ended = [], False
    for action in actions:
        observation, reward, terminated, truncated, _ = game.step(action)
        assert reward == 1.0
        seen.append(observation)
        ended = terminated or truncated
        if ended:
            break
    return inner.state, seen, ended


@given(
    lengths=st.lists(st.floats(0.05, 5), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    pushes=st.integers(1, 60),
)
def test_every_state_is_gymnasiums_to_the_last_bit(lengths: list[float], seed: int, pushes: int) -> None:
    generator = np.random.default_rng(seed)
    cartpole = CartPole()
    starts = cartpole.starts(len(lengths), generator)
    actions = generator.integers(2, size=(pushes, len(lengths)))
    for cart, length in enumerate(lengths):
        # All carts are on until this one ends: what happens to a cart does not depend on who else is there.
        games = cartpole.begin(np.array(lengths), starts)
        state, seen, ended = in_gymnasium(length, starts[cart], actions[:, cart].tolist())
        for step, expected in enumerate(seen):
            rewards, over = games.step(actions[step])
            assert rewards[cart] == 1.0
            assert np.array_equal(games.observations[cart], expected)
            assert over[cart] == (ended and step == len(seen) - 1)
        assert np.array_equal(games._state[:, cart], state)


def test_an_episode_is_as_long_as_gymnasiums() -> None:
    cartpole = CartPole()
    draws = Draws.make(cartpole, np.array([0.5, 4.5, 2.0]), seed=3)
    # Against the tilt, with the angular velocity: keeps the pole up for a while.
    episodes = play(
        cartpole,
        draws,
        lambda seen: np.stack([-50.0 * (seen @ [0, 0, 1, 1]), 50.0 * (seen @ [0, 0, 1, 1])], 1),
        record=True,
    )
    for cart, length in enumerate(draws.parameters):
        actions = episodes.actions[episodes.episode == cart].tolist()
        _, seen, ended = in_gymnasium(length, draws.starts[cart], actions)
        assert ended
        assert len(seen) == episodes.lengths[cart] == episodes.returns[cart]
        # What was recorded is what the policy saw before each step.
        assert np.array_equal(episodes.observations[episodes.episode == cart][1:], np.stack(seen)[:-1])


def test_pole_mass_goes_with_the_length() -> None:
    start = np.array([0.0, 0.0, 0.05, 0.5])
    wrong = gymnasium.make("CartPole-v1")
    wrong.reset()
    wrong.unwrapped.length, wrong.unwrapped.state = 4.0, start.copy()
    wrong.step(1)
    right, _, _ = in_gymnasium(4.0, start, [1])
    assert not np.array_equal(wrong.unwrapped.state, right)


def test_the_best_return_is_that_of_a_pole_that_stays_up() -> None:
    environment: Environment = CartPole()
    assert environment.best_return(1.0) == 500
    assert environment.best_return(0.99) == pytest.approx((1 - 0.99**500) / 0.01)
    assert environment.best_return(0.0) == 1


def test_a_single_cart_leaves_its_start_as_it_was() -> None:
    cartpole = CartPole()
    draws = Draws.make(cartpole, np.array([0.5]), seed=1)
    first, second = (play(cartpole, draws, lambda seen: np.zeros((len(seen), 2))) for _ in range(2))
    assert first.lengths == second.lengths


def test_without_a_parameter_the_pole_is_gymnasiums() -> None:
    cartpole = CartPole()
    starts = cartpole.starts(1, np.random.default_rng(0))
    games = cartpole.begin(np.array([np.nan]), starts)
    games.step(np.array([1]))
    state, _, _ = in_gymnasium(0.5, starts[0], [1])
    assert np.array_equal(games._state[:, 0], state)
