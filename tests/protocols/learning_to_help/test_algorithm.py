"""The losses and rules of learning to help have the properties that the paper claims."""

from __future__ import annotations

import doctest
import itertools
import math
from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from comity.errors import ComityError, InvalidValue, MalformedMessage, NonFiniteValue
from comity.protocols.learning_to_help import (
    Form,
    bayes_rule,
    confidence_scores,
    decide,
    fit_reject_rule,
    generalized_zero_one_loss,
    rejector_loss,
    rejector_scores,
    server_loss,
    stochastic_post_hoc,
)

COSTS = [(0.25, 0.5), (0.1, 1.0), (0.25, 1.25), (0.45, 1.25)]
seeds = st.integers(0, 2**32)
costs = st.tuples(st.floats(0, 0.99), st.floats(0, 4))


def known_distribution(inputs: int = 400, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Eta of so many inputs, from nearly certain to nearly even, and what a fixed m predicts: not always the best."""
    generator = torch.Generator().manual_seed(7)
    sharpness = torch.linspace(0.2, 6, inputs, dtype=torch.float64)[:, None]
    eta = (torch.randn(inputs, classes, generator=generator, dtype=torch.float64) * sharpness).softmax(dim=1)
    guesses = torch.multinomial(eta, 1, generator=generator)[:, 0]
    return eta, guesses


def expected_rejector_loss(logits: Tensor, eta: Tensor, local: Tensor, c_e: float, c_1: float, form: Form) -> Tensor:
    """L_2 in expectation over y, for e = argmax eta."""
    server = eta.argmax(dim=1)
    losses = [
        eta[:, label] * rejector_loss(logits, local == label, server == label, c_e, c_1, form=form)
        for label in range(eta.shape[1])
    ]
    return torch.stack(losses).sum(dim=0)


def fitted(eta: Tensor, local: Tensor, c_e: float, c_1: float, form: Form, steps: int = 600) -> Tensor:
    """The decisions of a rejector with logits of its own for each input, trained on the expected loss."""
    logits = torch.zeros(len(eta), 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        expected_rejector_loss(logits, eta, local, c_e, c_1, form).sum().backward()
        optimizer.step()
    return decide(logits.detach())


@pytest.mark.parametrize(("c_e", "c_1"), COSTS)
def test_the_shifted_loss_ends_in_the_bayes_rule(c_e: float, c_1: float) -> None:
    eta, local = known_distribution()

    decisions, best = fitted(eta, local, c_e, c_1, "shifted"), bayes_rule(eta, local, c_e, c_1)

    assert 0.05 < best.double().mean() < 0.95
    assert (decisions == best).double().mean() >= 0.99


def test_the_printed_loss_has_no_lower_bound_where_a_wrong_server_costs_more_than_it_could_save() -> None:
    right, wrong = torch.tensor([True]), torch.tensor([False])
    for gap in (10.0, 1000.0, 1e6):
        logits = torch.tensor([[gap, 0.0]], dtype=torch.float64)
        assert rejector_loss(logits, right, wrong, 0.45, 1.25, form="paper") < -0.69 * gap
        assert rejector_loss(logits, right, wrong, 0.45, 1.25) >= 0


@pytest.mark.parametrize(("c_e", "c_1"), COSTS)
def test_the_bayes_rule_costs_least_of_all_decisions(c_e: float, c_1: float) -> None:
    eta, local = known_distribution()
    server = eta.argmax(dim=1)

    def risk(remote: Tensor) -> Tensor:
        losses = [
            eta[:, label] * generalized_zero_one_loss(remote, local == label, server == label, c_e, c_1)
            for label in range(eta.shape[1])
        ]
        return torch.stack(losses).sum(dim=0)

    best = risk(bayes_rule(eta, local, c_e, c_1))
    assert bool((best <= risk(torch.ones(len(eta), dtype=torch.bool)) + 1e-12).all())
    assert bool((best <= risk(torch.zeros(len(eta), dtype=torch.bool)) + 1e-12).all())


def test_each_case_of_the_generalized_loss() -> None:
    cases = list(itertools.product([False, True], repeat=3))
    remote, local, server = (torch.tensor(each) for each in zip(*cases, strict=True))

    losses = generalized_zero_one_loss(remote, local, server, 0.2, 0.7).tolist()

    for (asked, local_right, server_right), loss in zip(cases, losses, strict=True):
        assert loss == pytest.approx(0.2 + 0.7 * (not server_right) if asked else float(not local_right))


@given(seeds, costs, st.booleans(), st.booleans())
def test_the_shifted_loss_is_convex_and_not_negative(
    seed: int, priced: tuple[float, float], local: bool, server: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(20, 2, generator=generator, dtype=torch.float64) * 5 for _ in range(2))
    flags = torch.full((20,), local), torch.full((20,), server)

    def loss(logits: Tensor) -> Tensor:
        return rejector_loss(logits, *flags, *priced)

    assert bool((loss(one) >= 0).all())
    share = torch.rand(20, generator=generator, dtype=torch.float64)
    between = share[:, None] * one + (1 - share[:, None]) * other
    assert bool((loss(between) <= share * loss(one) + (1 - share) * loss(other) + 1e-9).all())


@given(seeds, st.booleans())
def test_the_printed_loss_is_monotone_where_the_server_is_wrong_and_costly(seed: int, local: bool) -> None:
    """Falls with r_1 and grows with r_2 where 1 - c_e - c_1 + c_1 1[e = y] <= 0."""
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(20, 2, generator=generator, dtype=torch.float64) * 3).requires_grad_()

    rejector_loss(
        logits, torch.full((20,), local), torch.zeros(20, dtype=torch.bool), 0.45, 1.25, form="paper"
    ).sum().backward()

    assert logits.grad is not None
    assert bool((logits.grad[:, 0] <= 0).all())
    assert bool((logits.grad[:, 1] >= 0).all())


def test_one_form_where_costs_are_small() -> None:
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    flags = torch.arange(8) % 2 == 0, torch.arange(8) % 3 == 0
    assert torch.equal(rejector_loss(logits, *flags, 0.25, 0.5), rejector_loss(logits, *flags, 0.25, 0.5, form="paper"))


def test_the_rejectors_loss_reaches_the_rejector_alone() -> None:
    local, server, rejector = (torch.nn.Linear(4, out) for out in (3, 3, 2))
    inputs, labels = torch.randn(6, 4), torch.arange(6) % 3

    correct = [model(inputs).argmax(dim=1) == labels for model in (local, server)]
    rejector_loss(rejector(inputs), *correct, 0.25, 1.25).sum().backward()
    assert all(each.grad is None for model in (local, server) for each in model.parameters())
    assert all(each.grad is not None for each in rejector.parameters())

    rejector.zero_grad()
    server_loss(server(inputs), labels).sum().backward()
    assert all(each.grad is not None for each in server.parameters())
    assert all(each.grad is None for model in (local, rejector) for each in model.parameters())


def test_the_servers_loss_is_the_cross_entropy() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0])
    expected = -logits.log_softmax(dim=1)[torch.arange(5), labels]
    torch.testing.assert_close(server_loss(logits, labels), expected)


def test_ties_and_nan_stay_at_home() -> None:
    logits = torch.tensor([[1.0, 1.0], [0.0, math.nan], [0.0, 1e-30]])
    assert decide(logits).tolist() == [False, False, True]
    assert torch.equal(rejector_scores(logits)[[0, 2]], torch.tensor([0.0, 1e-30]))


def test_asking_where_the_model_is_least_sure() -> None:
    scores = confidence_scores(torch.tensor([[5.0, 0.0], [0.1, 0.0], [2.0, 0.0]]))
    assert scores.argsort(descending=True).tolist() == [1, 2, 0]


@given(seeds, st.floats(0, 1), st.integers(1, 60), st.sampled_from([0, 1, 3]))
def test_the_threshold_holds_the_limit_in_expectation(seed: int, limit: float, samples: int, decimals: int) -> None:
    """On the calibration scores, and for any of n + 1 scores that is left out: exactly, over all of them."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(samples + 1, generator=generator, dtype=torch.float64)
    scores = scores if decimals == 3 else (scores * 10).round(decimals=decimals)

    def rate(rule_scores: Tensor, on: Tensor) -> float:
        rule = fit_reject_rule(rule_scores, limit)
        ties = (on == rule.threshold).double()
        return float(((on > rule.threshold).double() + rule.tie_probability * ties).mean())

    calibration = scores[:-1]
    assert rate(calibration, calibration) <= limit + 1e-9
    left_out = [
        rate(torch.cat([scores[:place], scores[place + 1 :]]), scores[place : place + 1])
        for place in range(samples + 1)
    ]
    assert sum(left_out) / (samples + 1) <= limit + 1e-9


def test_the_limit_is_used_over_a_thousand_score_sets() -> None:
    generator = torch.Generator().manual_seed(3)
    limit, rates = 0.1, []
    for _ in range(1000):
        scores = torch.randn(149, generator=generator, dtype=torch.float64)
        fresh = torch.randn(200, generator=generator, dtype=torch.float64)
        rates.append(float(fit_reject_rule(scores, limit).decide(fresh, generator).double().mean()))
    mean = sum(rates) / len(rates)
    assert limit - 0.003 < mean < limit + 0.003


@given(seeds, st.floats(0.05, 1), st.floats(0, 1))
def test_the_published_rule_keeps_requests_by_chance_and_makes_none(seed: int, rate: float, limit: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    remote = torch.rand(4000, generator=generator) < rate

    kept = stochastic_post_hoc(remote, rate, limit, generator)

    assert not bool((kept & ~remote).any())
    # Five standard deviations of a binomial.
    assert abs(float(kept.double().mean()) - min(rate, limit)) < 5 * math.sqrt(0.25 / 4000)


def test_ends_of_the_limit() -> None:
    scores = torch.arange(10.0)
    assert not bool(fit_reject_rule(scores, 0.0).decide(scores).any())
    assert bool(fit_reject_rule(scores, 1.0).decide(scores).all())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: generalized_zero_one_loss(*[torch.ones(2, dtype=torch.bool)] * 3, 1.0, 0.5), InvalidValue, "c_e"),
        (lambda: generalized_zero_one_loss(*[torch.ones(2, dtype=torch.bool)] * 3, 0.1, -1), InvalidValue, "c_1"),
        (lambda: generalized_zero_one_loss(*[torch.ones(2)] * 3, 0.1, 1), MalformedMessage, "booleans"),
        (lambda: bayes_rule(torch.ones(2, 3), torch.tensor([0, 3]), 0.1, 1), MalformedMessage, "classes 0 to 2"),
        (lambda: bayes_rule(torch.ones(2, 3), torch.tensor([0]), 0.1, 1), MalformedMessage, "one for each row"),
        (lambda: bayes_rule(torch.full((1, 3), math.nan), torch.tensor([0]), 0.1, 1), NonFiniteValue, "finite"),
        (lambda: server_loss(torch.ones(2, 3), torch.tensor([0, 3])), MalformedMessage, "classes 0 to 2"),
        (lambda: server_loss(torch.ones(2, 3), torch.tensor([0])), MalformedMessage, "one for each row"),
        (lambda: decide(torch.ones(2, 3)), MalformedMessage, "LOCAL and REMOTE"),
        (lambda: confidence_scores(torch.ones(3)), MalformedMessage, "one row"),
        (lambda: fit_reject_rule(torch.ones(3), 1.1), InvalidValue, "0 to 1"),
        (lambda: fit_reject_rule(torch.ones(0), 0.1), MalformedMessage, "at least one"),
        (lambda: fit_reject_rule(torch.tensor([1.0, math.nan]), 0.1), NonFiniteValue, "finite"),
        (lambda: stochastic_post_hoc(torch.ones(2, dtype=torch.bool), math.nan, 0.1), InvalidValue, "0 to 1"),
    ],
)
def test_what_has_no_meaning_is_refused(call: object, error: type[ComityError], words: str) -> None:
    assert callable(call)
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("module", ["algorithm", "features", "reject_rate"])
def test_the_examples_in_the_docstrings(module: str) -> None:
    found = doctest.testmod(
        import_module(f"comity.protocols.learning_to_help.{module}"), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert found.attempted
    assert not found.failed
