"""What the paper's experiments are made of: tasks without labels, their trunk, scenes of several tasks."""

from __future__ import annotations

import math

import torch

from comity.protocols.nash_bargaining.studies.selfsupervised import Tasks, changed, exemplar_loss
from comity.protocols.nash_bargaining.studies.wide import wide_resnet


def test_copies_of_a_picture_are_to_be_nearer_than_those_of_others() -> None:
    places = torch.eye(4)
    right, wrong = exemplar_loss(places, places), exemplar_loss(places, places.roll(1, 0))
    assert math.isclose(float(right), math.log1p(math.exp(-math.sqrt(2))), rel_tol=1e-5)
    assert math.isclose(float(wrong), math.log1p(math.exp(math.sqrt(2))), rel_tol=1e-5)


def test_changed_pictures_are_those_pictures() -> None:
    draws = torch.Generator().manual_seed(0)
    plain = torch.ones(64, 3, 16, 16)
    found = changed(plain, draws)
    assert found.shape == plain.shape
    # Shifted by two at most, and brighter or darker by a fifth.
    inside = found[:, :, 2:-2, 2:-2]
    assert float(inside.min()) >= 0.8
    assert float(inside.max()) <= 1.2
    assert len(inside.flatten(1).amax(1).unique()) > 32
    column = torch.zeros(64, 1, 16, 16)
    column[..., 3] = 1.0
    places = changed(column, draws).sum(2).argmax(-1).flatten()
    assert set(places.tolist()) <= {*range(1, 6), *range(10, 15)}
    assert bool((places < 8).any())
    assert bool((places > 8).any())


def test_the_paper_s_trunk_has_its_size() -> None:
    trunk, features = wide_resnet(3)
    assert features == 128
    # 1.5 million, of which the last layer is not one.
    assert abs(sum(each.numel() for each in trunk.parameters()) - 1_466_000) < 5_000
    assert trunk(torch.zeros(2, 3, 32, 32)).shape == (2, 128)


def test_each_task_goes_through_its_own_head_and_one_trunk() -> None:
    model = Tasks((1, 8, 8), 10, "small")
    draws = torch.Generator().manual_seed(0)
    losses = model.losses((torch.rand(4, 1, 8, 8), torch.arange(4)), torch.rand(6, 1, 8, 8), draws)
    for task, loss in enumerate(losses):
        users = [head for head, each in enumerate(model.heads) if _reaches(loss, each.weight)]
        assert users == [task]
        assert all(_reaches(loss, each) for each in model.trunk.parameters())


def _reaches(loss: torch.Tensor, parameter: torch.Tensor) -> bool:
    (found,) = torch.autograd.grad(loss, [parameter], retain_graph=True, allow_unused=True)
    return found is not None
