"""Audits' figures are right where the answer is known."""

from __future__ import annotations

import pytest
import torch

from comity.privacy.audits import confidence, correlation, directions, likelihood, separation, shown


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scores_that_say_nothing_separate_nothing() -> None:
    found = separation(drawn(5000), drawn(5000, seed=1))
    assert found.auc == pytest.approx(0.5, abs=0.02)
    assert found.tpr == pytest.approx(0.01, abs=0.006)
    same = separation(torch.ones(10), torch.ones(20))
    assert (same.auc, same.tpr) == (0.5, 0.0)


def test_scores_of_which_all_members_are_higher_separate_all() -> None:
    found = separation(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0]))
    assert (found.auc, found.tpr) == (1.0, 1.0)


def test_the_area_is_that_of_two_normals() -> None:
    # Of normals one standard deviation apart: Phi(1 / sqrt 2).
    assert separation(drawn(20_000) + 1, drawn(20_000, seed=1)).auc == pytest.approx(0.760, abs=0.01)


def test_lira_judges_a_sample_by_models_that_did_not_see_it() -> None:
    hardness = drawn(400) * 5
    without = torch.arange(8)[:, None] % 2 == torch.arange(400) % 2
    shadows = hardness + 0.5 * drawn(8, 400, seed=2) + 100.0 * ~without
    target = hardness + torch.where(torch.arange(400) < 200, 1.5, 0.0)
    scores = likelihood(target, shadows, without)
    assert separation(scores[:200], scores[200:]).auc > 0.95
    # A threshold on the confidence alone does not see it.
    assert separation(target[:200], target[200:]).auc < 0.7


def test_confidence_grows_as_the_loss_falls() -> None:
    found = confidence(torch.tensor([5.0, 0.7, 0.01, 0.0]))
    assert bool((found.diff() > 0).all())
    assert bool(torch.isfinite(found).all())


class TestShown:
    samples = torch.rand(300, 64, generator=torch.Generator().manual_seed(3))

    def found(self, rows: torch.Tensor) -> set[int]:
        return {int(each) for candidates in directions(rows) for each in shown(candidates, self.samples)}

    @pytest.mark.parametrize("scale", [1.0, -3.0, 1e-6])
    def test_a_row_that_is_a_sample_shows_it(self, scale: float) -> None:
        rows = torch.zeros(10, 64)
        rows[4] = scale * self.samples[17] + 0.1 * scale
        assert self.found(rows) == {17}

    def test_a_difference_of_two_rows_shows_what_they_differ_by(self) -> None:
        mixed = self.samples[20:60].sum(dim=0)
        assert self.found(torch.stack([mixed, mixed + self.samples[5]])) == {5}

    def test_means_and_noise_show_nothing(self) -> None:
        rows = torch.stack([self.samples[at : at + 40].mean(dim=0) for at in range(0, 240, 40)])
        assert self.found(rows) == set()
        assert self.found(drawn(20, 64, seed=5)) == set()
        assert self.found(torch.zeros(5, 64)) == set()


def test_what_does_not_vary_has_no_correlation() -> None:
    assert correlation(torch.ones(4), torch.arange(4.0)) is None
    assert correlation(torch.arange(4.0), 3 - torch.arange(4.0)) == pytest.approx(-1.0)
