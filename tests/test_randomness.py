"""Derived seeds are what they always were, and seeding leaves no trace."""

from __future__ import annotations

import random  # noqa: TID251 - to see that its state stays as it was
from threading import Event, Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.randomness import derive, generator, seeded

words = st.one_of(st.text(max_size=4), st.integers())
keys = st.one_of(words, st.binary(max_size=4))


def test_derive_gives_the_seeds_it_always_gave() -> None:
    # Two parties of different versions must draw the same initial weights.
    assert derive(0, "initial weights") == 1492047779789033747
    assert derive(b"secret", "data order", 3, -1) == 5978483071318531498


@settings(deadline=None)
@given(st.tuples(keys, words, words), st.tuples(keys, words, words))
def test_derive_tells_calls_apart(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
    assert (derive(*one) == derive(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, "2"), (1, 2)), (("ab", "c"), ("a", "bc")), (("a",), (b"a",)), (("a", ""), ("a",)), ((255,), (-1,))],
)
def test_derive_is_unambiguous(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
    assert derive(*one) != derive(*other)


@settings(deadline=None)
@given(keys)
def test_derived_seeds_have_63_bits_and_fit_a_generator(key: str | bytes | int) -> None:
    seed = derive(key)
    assert 0 <= seed < 2**63
    assert generator(seed).initial_seed() == seed


def test_derive_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="float"):
        derive(0, 0.5)  # type: ignore[arg-type]


def test_generator_repeats() -> None:
    assert torch.equal(torch.rand(5, generator=generator(7)), torch.rand(5, generator=generator(7)))


def test_seeded_repeats_and_restores_every_global_state() -> None:
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    with seeded(7):
        first = torch.rand(5)
    with seeded(7):
        assert torch.equal(torch.rand(5), first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]  # noqa: NPY002


def test_seeded_restores_after_an_error_and_when_nested() -> None:
    before = torch.get_rng_state()
    with seeded(1):
        first = torch.rand(1)
        with pytest.raises(ZeroDivisionError), seeded(2):
            _ = torch.rand(1) / 0, 1 / 0
        second = torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(1):
        assert torch.equal(torch.cat((torch.rand(1), torch.rand(1))), torch.cat((first, second)))


def test_seeded_lets_one_thread_in_at_a_time() -> None:
    inside = Event()

    def enter() -> None:
        with seeded(2):
            inside.set()

    other = Thread(target=enter)
    with seeded(1):
        other.start()
        assert not inside.wait(0.05)
    other.join()
    assert inside.is_set()
