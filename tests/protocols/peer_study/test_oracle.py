"""The simulated oracle mistakes what it is told to, and within superclasses alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import ComityError, InvalidValue, MalformedMessage
from comity.protocols.peer_study.oracle import SimulatedOracle
from comity.protocols.peer_study.studies.sizes import SUPERCLASSES

GROUPS = ((0, 4, 2), (1, 3), (5,))
LABELS = torch.arange(6).repeat(400)
EVERY = torch.arange(len(LABELS))


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_who_is_mistaken_stays_in_its_superclass(seed: int, noise: float) -> None:
    said = SimulatedOracle(LABELS, 6, noise=noise, superclasses=GROUPS, seed=seed).label(EVERY)
    for group in GROUPS:
        inside = torch.isin(LABELS, torch.tensor(group))
        assert bool(torch.isin(said[inside], torch.tensor(group)).all())


def test_as_many_as_the_noise_says_are_mistaken_and_each_other_class_comes_up() -> None:
    said = SimulatedOracle(LABELS, 6, noise=0.3, superclasses=GROUPS).label(EVERY)
    wrong = said != LABELS
    assert float(wrong[LABELS != 5].double().mean()) == pytest.approx(0.3, abs=0.04)
    assert not bool(wrong[LABELS == 5].any())
    of_zero = said[(LABELS == 0) & wrong].bincount(minlength=6)
    assert min(int(of_zero[4]), int(of_zero[2])) > 0.3 * int(of_zero.sum())
    assert bool((SimulatedOracle(LABELS, 6, noise=1).label(EVERY) != LABELS).all())


def test_it_says_the_same_again_and_more_noise_mistakes_the_same_and_others() -> None:
    little, much = (SimulatedOracle(LABELS, 6, noise=noise, seed=3) for noise in (0.1, 0.3))
    some = torch.tensor([7, 1900, 7])
    assert torch.equal(little.label(some), little.label(EVERY)[some])
    wrong = little.label(EVERY) != LABELS
    assert torch.equal(little.label(EVERY)[wrong], much.label(EVERY)[wrong])
    assert torch.equal(SimulatedOracle(LABELS, 6).label(EVERY), LABELS)


@pytest.mark.parametrize(
    ("options", "labels", "error"),
    [
        ({"noise": 1.1}, [0], InvalidValue),
        ({"superclasses": [(0, 1), (1, 2)]}, [0], InvalidValue),
        ({"superclasses": [(0, 1)]}, [0], InvalidValue),
        ({}, [3], MalformedMessage),
        ({}, [-1], MalformedMessage),
    ],
)
def test_what_has_no_meaning_is_refused(
    options: dict[str, object], labels: list[int], error: type[ComityError]
) -> None:
    with pytest.raises(error):
        SimulatedOracle(torch.tensor(labels), 3, **options)  # type: ignore[arg-type]


def test_each_class_of_cifar_100_is_in_one_superclass_of_five() -> None:
    assert sorted(fine for each in SUPERCLASSES for fine in each) == [*range(100)]
    assert {len(each) for each in SUPERCLASSES} == {5}
    # Beaver, dolphin, otter, seal and whale are the aquatic mammals.
    assert SUPERCLASSES[0] == (4, 30, 55, 72, 95)
