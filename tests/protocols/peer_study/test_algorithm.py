"""Losses, split and selection of peer study have the properties that the paper gives them."""

from __future__ import annotations

import doctest
import math
from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from comity.errors import ComityError, InvalidValue, MalformedMessage, NonFiniteValue
from comity.protocols.peer_study import (
    consensus_split,
    discrepancy,
    in_class_loss,
    out_of_class_loss,
    pair,
    select,
)

seeds = st.integers(0, 2**32)
peers = st.integers(1, 4)


def drawn(seed: int, *shape: int) -> Tensor:
    """Logits by chance, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@given(seeds, peers)
def test_the_in_class_loss_is_each_students_sum_of_both_cross_entropies(seed: int, students: int) -> None:
    logits, teacher = drawn(seed, students, 6, 5), drawn(seed + 1, 6, 5)
    labels, alpha, tau = torch.arange(6) % 5, 0.3, 2.5
    expected = torch.zeros(6, dtype=torch.float64)
    for student in logits:
        chances = student.log_softmax(dim=1)
        softened = torch.log_softmax(student / tau, dim=1)
        told = torch.softmax(teacher / tau, dim=1)
        for sample in range(6):
            expected[sample] += -(1 - alpha) * chances[sample, labels[sample]]
            expected[sample] += -alpha * tau**2 * (told[sample] * softened[sample]).sum()

    torch.testing.assert_close(in_class_loss(logits, teacher, labels, alpha, tau), expected)


def test_no_gradient_reaches_the_teacher() -> None:
    students, teacher = drawn(0, 2, 3, 4).requires_grad_(), drawn(1, 3, 4).requires_grad_()
    in_class_loss(students, teacher, torch.tensor([0, 1, 2])).sum().backward()
    assert teacher.grad is None
    assert students.grad is not None
    assert bool((students.grad != 0).any())


@given(seeds, st.integers(2, 4))
def test_discrepancy_is_the_sum_over_ordered_pairs(seed: int, students: int) -> None:
    logits = drawn(seed, students, 7, 4)
    logs = logits.log_softmax(dim=2)
    expected = torch.zeros(7, dtype=torch.float64)
    for one in range(students):
        for other in range(students):
            if one != other:
                expected += (logs[one].exp() * (logs[one] - logs[other])).sum(dim=1)

    found = discrepancy(logits)

    torch.testing.assert_close(found, expected)
    assert bool((found >= 0).all())


@given(seeds, st.integers(2, 4), st.integers(2, 6))
def test_discrepancy_is_zero_for_equal_peers_and_the_same_in_any_order(seed: int, students: int, classes: int) -> None:
    one = drawn(seed, 1, 9, classes)
    assert torch.equal(discrepancy(one.expand(students, -1, -1)), torch.zeros(9, dtype=torch.float64))
    different = drawn(seed, students, 9, classes)
    torch.testing.assert_close(discrepancy(different), discrepancy(different.flip(0)))


def test_one_peer_is_asked_by_its_entropy() -> None:
    logits = drawn(0, 1, 8, 5)
    torch.testing.assert_close(discrepancy(logits), torch.distributions.Categorical(logits=logits[0]).entropy())


@given(seeds, peers, st.integers(2, 5))
def test_the_split_covers_the_pool_once_and_follows_its_definition(seed: int, students: int, classes: int) -> None:
    logits = drawn(seed, students, 20, classes)
    said = logits.argmax(dim=2)

    agreed = consensus_split(logits)

    for sample in range(20):
        assert bool(agreed[sample]) == (len({*said[:, sample].tolist()}) < students)
    dissenting, agreeing = (~agreed).nonzero().flatten(), agreed.nonzero().flatten()
    assert sorted([*dissenting.tolist(), *agreeing.tolist()]) == [*range(20)]


def test_more_peers_than_classes_always_agree_somewhere() -> None:
    assert bool(consensus_split(drawn(0, 3, 50, 2)).all())


@given(seeds)
def test_pairs_are_of_both_sets_and_none_is_there_twice(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    agreed = torch.rand(30, generator=generator) < 0.3

    dissenting, agreeing = pair(agreed, generator)

    assert len(dissenting) == len(agreeing) == min(int(agreed.sum()), int((~agreed).sum()))
    assert not bool(agreed[dissenting].any())
    assert bool(agreed[agreeing].all())
    assert len({*dissenting.tolist()}) == len(dissenting)


def test_an_empty_set_gives_no_pair_and_no_loss() -> None:
    scores = drawn(0, 5).abs()
    for agreed in (torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
        dissenting, agreeing = pair(agreed)
        assert len(out_of_class_loss(scores[dissenting], scores[agreeing])) == 0


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 5))
def test_both_forms_of_the_out_of_class_loss(d_dissent: float, d_consensus: float, margin: float) -> None:
    d, a = (torch.tensor([each], dtype=torch.float64) for each in (d_dissent, d_consensus))
    printed = out_of_class_loss(d, a, margin)
    directed = out_of_class_loss(d, a, margin, form="directed")
    assert float(printed) == pytest.approx(max(0.0, margin - abs(d_dissent - d_consensus)))
    assert float(directed) == pytest.approx(max(0.0, margin - (d_dissent - d_consensus)))
    assert float(directed) >= float(printed) - 1e-12


@given(seeds, st.integers(0, 12))
def test_selection_never_leaves_the_candidates_and_takes_the_greatest(seed: int, budget: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(6, (40,), generator=generator).double()
    candidates = torch.randperm(40, generator=generator)[:12]

    chosen = select(scores, budget, candidates)

    assert {*chosen.tolist()} <= {*candidates.tolist()}
    left = [float(scores[each]) for each in candidates.tolist() if each not in {*chosen.tolist()}]
    assert all(float(scores[each]) >= max(left, default=0.0) for each in chosen)
    assert torch.equal(chosen, select(scores, budget, candidates.flip(0)))


def test_scores_of_others_than_candidates_do_not_matter() -> None:
    scores = drawn(0, 20)
    candidates = torch.arange(0, 20, 3)
    changed = scores.clone()
    changed[1::3] = math.nan
    changed[2::3] = math.inf
    assert torch.equal(select(scores, 3, candidates), select(changed, 3, candidates))


def test_pixels_are_summed_and_pairs_agree_by_most_of_them() -> None:
    logits = drawn(0, 2, 3, 4, 5, 6)
    by_pixel = discrepancy(logits.permute(0, 1, 3, 4, 2).reshape(2, -1, 4)).view(3, 30).sum(dim=1)
    torch.testing.assert_close(discrepancy(logits), by_pixel)

    same = logits[:1].expand(2, -1, -1, -1, -1).clone()
    assert bool(consensus_split(same).all())
    # Half of the pixels is not more than half.
    same[1, :, :, :, :3] = -same[1, :, :, :, :3]
    assert not bool(consensus_split(same).any())

    labels = torch.zeros(3, 5, 6, dtype=torch.int64)
    flat = in_class_loss(
        logits.permute(0, 1, 3, 4, 2).reshape(2, -1, 4),
        logits[0].permute(0, 2, 3, 1).reshape(-1, 4),
        labels.flatten(),
    )
    torch.testing.assert_close(in_class_loss(logits, logits[0], labels), flat.view(3, 30).mean(dim=1))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: in_class_loss(torch.ones(2, 3, 4), torch.ones(3, 5), torch.zeros(3).long()),
            MalformedMessage,
            "teach",
        ),
        (lambda: in_class_loss(torch.ones(2, 3, 4), torch.ones(3, 4), torch.full((3,), 4)), MalformedMessage, "0 to 3"),
        (
            lambda: in_class_loss(torch.ones(2, 3, 4), torch.ones(3, 4), torch.zeros(3).long(), alpha=2),
            InvalidValue,
            "alpha",
        ),
        (
            lambda: in_class_loss(torch.ones(2, 3, 4), torch.ones(3, 4), torch.zeros(3).long(), temperature=0),
            InvalidValue,
            "temperature",
        ),
        (lambda: discrepancy(torch.ones(3, 4)), MalformedMessage, "peers x batch"),
        (lambda: consensus_split(torch.ones(0, 3, 4)), MalformedMessage, "peers x batch"),
        (lambda: out_of_class_loss(torch.ones(2), torch.ones(3)), MalformedMessage, "consensus"),
        (lambda: out_of_class_loss(torch.ones(2), torch.ones(2), -1), InvalidValue, "margin"),
        (lambda: select(torch.ones(4), 3, torch.tensor([0, 1])), InvalidValue, "budget"),
        (lambda: select(torch.ones(4), 1, torch.tensor([0, 0])), MalformedMessage, "each once"),
        (lambda: select(torch.ones(4), 1, torch.tensor([4])), MalformedMessage, "0 to 3"),
        (lambda: select(torch.ones(4), 1, torch.tensor([True])), MalformedMessage, "int64"),
        (lambda: select(torch.tensor([math.nan, 1.0]), 1, torch.tensor([0, 1])), NonFiniteValue, "finite"),
    ],
)
def test_what_has_no_meaning_is_refused(call: object, error: type[ComityError], words: str) -> None:
    assert callable(call)
    with pytest.raises(error, match=words):
        call()


def test_the_examples_in_the_docstrings() -> None:
    found = doctest.testmod(
        import_module("comity.protocols.peer_study.algorithm"), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert found.attempted
    assert not found.failed
